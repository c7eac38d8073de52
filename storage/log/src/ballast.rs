//! Room that is given up when the disk is full, so that what makes room can still be written:
//! acknowledgements, the first file of a start, flushes.

use polymq_store::{Room, take_reserve};

use crate::{
    core::Home,
    error::{Failure, io_at},
};

/// Its file in the data directory.
pub(crate) const BALLAST: &str = "ballast";

impl Room for Home {
    type Failure = Failure;

    fn is_taken(&self) -> bool {
        self.disk.open(BALLAST).is_ok()
    }

    fn take(&self, bytes: u64) -> Result<bool, Failure> {
        let doing = "taking ballast";
        let file = self.disk.create(BALLAST).map_err(io_at(doing));
        match file.and_then(|file| file.allocate(bytes).map_err(io_at(doing))) {
            Ok(()) => Ok(true),
            Err(Failure::Fatal(why)) => Err(Failure::Fatal(why)),
            Err(_) => Ok(false),
        }
    }

    fn give_up(&self) -> bool {
        self.disk.remove(BALLAST).is_ok()
    }
}

/// Takes the room, when there is plenty.
///
/// Errors: only those after which nothing can be written any more.
pub(crate) fn take(home: &Home) -> Result<(), Failure> {
    take_reserve(home, home.config.ballast_bytes).map(|_| ())
}

/// Gives the room back; false when there is none.
pub(crate) fn release(home: &Home) -> bool {
    let is_released = home.give_up();
    if is_released {
        tracing::warn!(event = "ballast_released", "the disk is full: the reserve is given up");
    }
    is_released
}

/// Does `act`, and once more when the disk was full and there was a reserve.
pub(crate) fn with_reserve<T>(
    home: &Home,
    mut act: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    match act() {
        Err(Failure::Full(_)) if release(home) => act(),
        result => result,
    }
}
