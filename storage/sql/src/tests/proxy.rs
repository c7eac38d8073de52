//! A wire between store and database that counts, and breaks when a test says so.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    thread,
};

use parking_lot::Mutex;

/// What breaks the next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Break {
    Nothing,
    /// What the store sends next does not arrive.
    Question,
    /// It arrives, and the answer does not.
    Answer,
}

#[derive(Debug)]
struct State {
    next: Break,
    /// How often the store spoke after the database had.
    turns: u64,
    /// What the store has sent.
    bytes: u64,
    store_spoke_last: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Proxy {
    state: Arc<Mutex<State>>,
    port: u16,
}

impl Proxy {
    pub(super) fn before(socket: PathBuf) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State { next: Break::Nothing, turns: 0, bytes: 0, store_spoke_last: false };
        let state = Arc::new(Mutex::new(state));
        let proxy = Self { state: Arc::clone(&state), port };
        thread::spawn(move || {
            for store in listener.incoming().flatten() {
                // A database that is down refuses.
                let Ok(database) = UnixStream::connect(&socket) else { continue };
                join(store, database, &state);
            }
        });
        proxy
    }

    pub(super) fn url(&self, direct: &str) -> String {
        let (login, _) = direct.split_once('?').unwrap();
        login.replace("@localhost/", &format!("@127.0.0.1:{}/", self.port))
    }

    pub(super) fn break_next(&self, what: Break) {
        self.state.lock().next = what;
    }

    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    pub(super) fn turns(&self) -> u64 {
        self.state.lock().turns
    }
}

fn join(store: TcpStream, database: UnixStream, state: &Arc<Mutex<State>>) {
    store.set_nodelay(true).unwrap();
    let ends = (store.try_clone().unwrap(), database.try_clone().unwrap());
    let state_up = Arc::clone(state);
    thread::spawn(move || {
        let (mut from, mut to) = (ends.0, ends.1);
        pump(&mut from, &mut to, |count| {
            let mut state = state_up.lock();
            state.bytes += count as u64;
            if !state.store_spoke_last {
                state.turns += 1;
                state.store_spoke_last = true;
            }
            let is_cut = state.next == Break::Question;
            if is_cut {
                state.next = Break::Nothing;
            }
            !is_cut
        });
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
    let state_down = Arc::clone(state);
    thread::spawn(move || {
        let (mut from, mut to) = (database, store);
        pump(&mut from, &mut to, |_| {
            let mut state = state_down.lock();
            state.store_spoke_last = false;
            let is_cut = state.next == Break::Answer;
            if is_cut {
                state.next = Break::Nothing;
            }
            !is_cut
        });
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}

fn pump(from: &mut impl Read, to: &mut impl Write, passes: impl Fn(usize) -> bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || !passes(count) || to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
