//! Room that is given up when the disk is full, so that what makes room can still be written:
//! acknowledgements, the first file of a start, flushes.

use crate::{
    core::Home,
    error::{Failure, io_at},
};

/// Its file in the data directory.
pub(crate) const BALLAST: &str = "ballast";

/// Takes the room, when there is plenty: twice as much must fit.
///
/// Errors: only those after which nothing can be written any more.
pub(crate) fn take(home: &Home) -> Result<(), Failure> {
    let bytes = home.config.ballast_bytes;
    if bytes == 0 || home.disk.open(BALLAST).is_ok() {
        return Ok(());
    }
    let reserve = |bytes| {
        let file = home.disk.create(BALLAST).map_err(io_at("taking ballast"))?;
        file.allocate(bytes).map_err(io_at("taking ballast"))
    };
    // The second time leaves as much free as it takes.
    for bytes in [bytes * 2, bytes] {
        let _ = home.disk.remove(BALLAST);
        match reserve(bytes) {
            Ok(()) => {}
            Err(Failure::Fatal(why)) => return Err(Failure::Fatal(why)),
            Err(_) => {
                let _ = home.disk.remove(BALLAST);
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Gives the room back; false when there is none.
pub(crate) fn release(home: &Home) -> bool {
    let is_released = home.disk.remove(BALLAST).is_ok();
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
