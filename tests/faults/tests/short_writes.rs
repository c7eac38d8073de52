//! Case K8: writes that are done in part, are interrupted, or are to be tried again.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{fs, path::Path, thread, time::Duration};

use polymq_faults::{
    broker::Home,
    load::Run,
    native::{LIBRARY, compiled},
    report::{say, skip},
    strace::Injection,
};

/// Exit code when the store cannot be trusted any more.
const STORE_FAILED: i32 = 74;
const SMALL_FILES: [&str; 2] = ["--set", "storage.file.segment_size=1MiB"];
const SQLITE: [&str; 2] = ["--set", "storage.backend=sqlite"];

/// Load on a store whose writes are cut, then a kill and a look at everything.
fn under_load(case: &str, home: Home, cuts: &Path) {
    let mut home = home;
    let run = Run::new(0x6B38_0000, 700);
    let mut broker = home.start().unwrap();
    run.open(&broker).unwrap();
    let broker = run.under_load(|| {
        for _ in 0..2 {
            thread::sleep(Duration::from_millis(700));
            run.stage.down();
            broker.kill();
            broker = home.start().unwrap();
            run.stage.up(broker.ports);
        }
        thread::sleep(Duration::from_millis(300));
        broker
    });
    let cut = fs::read(cuts).unwrap_or_default().iter().filter(|byte| **byte == b'c').count();
    home.wrap(&[]);
    let found = run.finish(case, broker, home).unwrap();
    say(&format!("{case}: {cut} writes cut in the last life"));
    assert!(cut > 10, "hardly any write was cut");
    assert!(found.counted.confirmed > 200, "hardly any load: {found}");
}

#[test]
fn k08_writes_of_the_log_that_are_cut_short_are_completed() {
    let mut home = Home::new().unwrap();
    home.always(&SMALL_FILES);
    let Some(tracer) = compiled(&home, "short_writes/tracer.c", &[]).unwrap() else {
        return skip("K8", "there is no C compiler");
    };
    let cuts = home.file("cuts");
    home.wrap(&[tracer.to_str().unwrap(), cuts.to_str().unwrap(), "3"]);
    under_load("K8 short", home, &cuts);
}

#[test]
fn k08_writes_of_sqlite_that_are_cut_short_are_completed() {
    let mut home = Home::new().unwrap();
    home.always(&SQLITE);
    let source = "short_writes/preloaded.c";
    let Some(library) = compiled(&home, source, &LIBRARY).unwrap() else {
        return skip("K8 with SQLite", "there is no C compiler");
    };
    let cuts = home.file("cuts");
    let preload = format!("LD_PRELOAD={}", library.display());
    let log = format!("SHORT_WRITE_LOG={}", cuts.display());
    home.wrap(&["env", &preload, &log]);
    under_load("K8 short with SQLite", home, &cuts);
}

/// Has calls under load answer with an error; the broker may end of it, when that is allowed.
fn with_error(case: &str, flags: &[&str], how: &str, may_end: bool) {
    let mut home = Home::new().unwrap();
    home.always(flags);
    let run = Run::new(0x6B38_0001, 700);
    let mut broker = home.start().unwrap();
    run.open(&broker).unwrap();
    let mut skipped = None;
    let mut ended = false;
    let broker = run.under_load(|| {
        thread::sleep(Duration::from_millis(200));
        let calls = "pwritev,pwrite64";
        match Injection::into(&home, &broker, calls, how) {
            Ok(injection) => {
                let end = broker.ended_within(Duration::from_secs(1)).unwrap();
                drop(injection);
                if let Some(status) = end {
                    assert!(may_end, "{status}: {}", home.log());
                    assert_eq!(status.code(), Some(STORE_FAILED), "{}", home.log());
                    run.stage.down();
                    ended = true;
                    broker = home.start().unwrap();
                    run.stage.up(broker.ports);
                }
            }
            Err(error) => skipped = Some(error.to_string()),
        }
        thread::sleep(Duration::from_millis(300));
        broker
    });
    if let Some(reason) = skipped {
        return skip(case, &reason);
    }
    say(&format!("{case}: {}", if ended { "ended and started again" } else { "went on" }));
    run.finish(case, broker, home).unwrap();
}

#[test]
fn k08_an_interrupted_write_is_repeated() {
    with_error("K8 EINTR", &SMALL_FILES, "error=EINTR:when=1+3", false);
    with_error("K8 EINTR with SQLite", &SQLITE, "error=EINTR:when=1+3", false);
}

#[test]
fn k08_a_write_that_is_refused_for_no_good_reason_is_never_taken_for_done() {
    with_error("K8 EAGAIN", &SMALL_FILES, "error=EAGAIN:when=20", true);
    with_error("K8 EAGAIN with SQLite", &SQLITE, "error=EAGAIN:when=20", true);
}
