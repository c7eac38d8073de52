use std::{io::Write, time::Duration};

use super::{
    value::{ByteCount, MemoryMark, Raw, Setting},
    *,
};

fn load(text: &str, env: &[(&str, &str)], flags: &[&str]) -> Result<Loaded, Mistakes> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Config::load(&Sources {
        file: Some(file.path().to_owned()),
        env: env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        flags: flags.iter().map(|flag| ((*flag).into(), format!("--set {flag}"))).collect(),
        ports: Ports::Configured,
    })
}

fn mistakes(text: &str) -> String {
    load(text, &[], &[]).unwrap_err().shown
}

#[test]
fn reference_file_is_what_the_declarations_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/polymq.toml");
    let kept = std::fs::read_to_string(path).unwrap();
    let differing = kept.lines().zip(reference().lines()).position(|(kept, new)| kept != new);
    assert!(
        kept == reference(),
        "line {:?} is out of date; run `polymq config docs > config/polymq.toml`",
        differing.map(|index| index + 1)
    );
}

#[test]
fn reference_file_is_the_default_configuration() {
    let from_file = load(&reference(), &[], &[]).unwrap();
    let from_nothing = load("", &[], &[]).unwrap();
    assert_eq!(from_file.config, from_nothing.config);
}

#[test]
fn reference_file_names_every_key() {
    let text = reference();
    for section in section::SECTIONS {
        for key in section.keys {
            assert!(text.contains(&format!("{} = ", key.name)), "{}.{}", section.path, key.name);
        }
    }
}

#[test]
fn unknown_key_is_shown_with_its_place_and_the_nearest_key() {
    let shown = mistakes("[limits]\nmesage_size = \"1MiB\"\n");
    assert!(shown.contains("unknown key `limits.mesage_size`"), "{shown}");
    assert!(shown.contains(":2:1\n"), "{shown}");
    assert!(shown.contains("2 | mesage_size = \"1MiB\"\n"), "{shown}");
    assert!(shown.contains("| ^^^^^^^^^^^\n"), "{shown}");
    assert!(shown.contains("did you mean `limits.message_size`?"), "{shown}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let shown = mistakes(
        "[serv]\nname = \"x\"\n[limits]\nconnections = \"many\"\nmessage_size = 16\n\
         [storage]\nbackend = \"paper\"\n",
    );
    for part in [
        "unknown key `serv`",
        "did you mean `server`?",
        "expected a whole number",
        "such as \"16MiB\"",
        "expected one of \"file\", \"memory\", \"postgres\", \"sqlite\"",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[test]
fn text_that_is_no_toml_is_shown_with_its_place() {
    let shown = mistakes("[limits\nconnections = 1\n");
    assert!(shown.contains(":1:8"), "{shown}");
}

#[test]
fn later_sources_win_over_earlier_ones() {
    let text = "[limits]\nconnections = 1\nprefetch_max = 2\nchannels_per_connection = 3\n";
    let env = [("POLYMQ__LIMITS__CONNECTIONS", "10"), ("POLYMQ__LIMITS__PREFETCH_MAX", "20")];
    let loaded = load(text, &env, &["limits.connections=100"]).unwrap();
    let limits = &loaded.config.limits;
    assert_eq!((limits.connections, limits.prefetch_max), (100, 20));
    assert_eq!(limits.channels_per_connection, 3);
    let origin = |key: &str| {
        let found = loaded.effective.iter().find(|(path, ..)| path == key);
        found.map(|(_, _, origin)| origin.clone()).unwrap()
    };
    assert_eq!(origin("limits.connections"), "flag --set limits.connections");
    assert_eq!(origin("limits.prefetch_max"), "env POLYMQ__LIMITS__PREFETCH_MAX");
    assert!(origin("limits.channels_per_connection").ends_with(":4"));
    assert_eq!(origin("limits.message_size"), "default");
}

#[test]
fn unknown_variable_and_unknown_flag_are_errors() {
    let shown = load("", &[("POLYMQ__LIMIT__CONNECTIONS", "1")], &["limits.conections=1"])
        .unwrap_err()
        .shown;
    assert!(shown.contains("env POLYMQ__LIMIT__CONNECTIONS"), "{shown}");
    assert!(shown.contains("did you mean `limits.connections`?"), "{shown}");
}

#[test]
fn lists_in_the_environment_are_separated_by_commas() {
    let env = [("POLYMQ__LISTENERS__AMQP__BIND", "0.0.0.0:5672,[::1]:5672")];
    let loaded = load("", &env, &[]).unwrap();
    let amqp = &loaded.config.endpoints[0];
    assert_eq!(amqp.name, "amqp");
    assert_eq!(amqp.addresses.len(), 2);
    assert!(loaded.warnings[0].contains("listener `amqp`"), "{:?}", loaded.warnings);
}

#[test]
fn listeners_exist_by_themselves_on_loopback_and_can_be_switched_off() {
    let config = load("[listeners]\nmqtt = { bind = [] }\n", &[], &[]).unwrap().config;
    let names: Vec<_> = config.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    assert_eq!(names, ["amqp", "stomp", "xmpp", "http", "metrics"]);
    let is_loopback = |endpoint: &Endpoint| endpoint.addresses.iter().all(|a| a.ip().is_loopback());
    assert!(config.endpoints.iter().all(is_loopback));
}

#[test]
fn named_listener_needs_a_protocol_an_address_and_its_certificate() {
    let shown = mistakes("[listeners]\nsensors = { bind = [\":1\"] }\n");
    assert!(shown.contains("listener `sensors` does not say what it speaks"), "{shown}");
    let shown = mistakes("[listeners.amqps]\nprotocol = \"amqp\"\n");
    assert!(shown.contains("listener `amqps` has no address"), "{shown}");
    let shown = mistakes("[listeners]\nmqtt = { bind = [\":1\"], tls = \"public\" }\n");
    assert!(shown.contains("add a table [tls.public]"), "{shown}");
}

#[test]
fn ports_can_be_moved_or_left_to_the_system() {
    let load = |ports| Config::load(&Sources { ports, ..Sources::default() }).unwrap().config;
    let ports = |config: &Config| -> Vec<_> {
        config.endpoints.iter().map(|endpoint| endpoint.addresses[0].port()).collect()
    };
    assert_eq!(ports(&load(Ports::Offset(1000))), [6672, 2883, 62613, 6222, 16672, 16692]);
    assert_eq!(ports(&load(Ports::Free)), [0; 6]);
}

#[test]
fn values_carry_their_units() {
    let read = |text: &str| Raw::Text(text.to_owned());
    assert_eq!(ByteCount::read(&read("16MiB")), Some(ByteCount(16 << 20)));
    assert_eq!(ByteCount::read(&read("20 MB")), Some(ByteCount(20_000_000)));
    assert_eq!(ByteCount::read(&read("16")), None);
    assert_eq!(ByteCount::read(&read("99999999999999GiB")), None);
    assert_eq!(Duration::read(&read("1d")), Some(Duration::from_secs(86_400)));
    assert_eq!(Duration::read(&read("50ms")), Some(Duration::from_millis(50)));
    assert_eq!(Duration::from_millis(1500).show(), "\"1500ms\"");
    assert_eq!(Duration::ZERO.show(), "\"0s\"");
    assert_eq!(MemoryMark::read(&read("60%")), Some(MemoryMark::Percent(60)));
    assert_eq!(MemoryMark::read(&read("0%")), None);
}

#[test]
fn password_of_the_database_is_shown_nowhere() {
    for (url, shown) in [
        ("postgres://u:s3cret@h/d", "postgres://u:***@h/d"),
        (
            "postgres://u@h/d?password=s3cret&sslmode=require",
            "postgres://u@h/d?password=***&sslmode=require",
        ),
        ("postgres://u@h/d", "postgres://u@h/d"),
    ] {
        let loaded = load(&format!("[storage.postgres]\nurl = \"{url}\"\n"), &[], &[]).unwrap();
        let found = loaded.effective.iter().find(|(key, ..)| key == "storage.postgres.url");
        assert_eq!(found.unwrap().1, format!("\"{shown}\""));
        assert!(!format!("{:?}", loaded.config).contains("s3cret"));
    }
    let flag = "storage.postgres.url=postgres://u:s3cret@h/d";
    let loaded = load("", &[], &[flag]).unwrap();
    assert!(!format!("{:?}", loaded.effective).contains("s3cret"), "{:?}", loaded.effective);
    let from_file = "[storage.postgres]\npassword = { file = \"/run/secret\" }\nlease = \"3s\"\n";
    let config = load(from_file, &[], &[]).unwrap().config;
    assert_eq!(config.storage_password.file, Path::new("/run/secret"));
    assert!(mistakes("[storage.postgres]\nlease = \"1ms\"\n").contains("out of range"));
}

#[test]
fn default_listeners_are_shown_as_they_are() {
    let loaded = load("", &[], &[]).unwrap();
    let shown: String =
        loaded.effective.iter().map(|(key, value, _)| format!("{key} = {value}\n")).collect();
    assert!(shown.contains("listeners.amqp.bind = [\":5672\"]\n"), "{shown}");
    assert!(shown.contains("listeners.amqp.protocol = \"amqp\"\n"), "{shown}");
    // What is shown is a configuration that says the same.
    assert_eq!(load(&shown, &[], &[]).unwrap().config, loaded.config);
}

#[test]
fn listeners_that_are_all_off_are_warned_about() {
    let off = ["amqp", "mqtt", "stomp", "xmpp", "http", "metrics"]
        .map(|name| format!("listeners.{name}.bind="));
    let loaded = load("", &[], &off.each_ref().map(String::as_str)).unwrap();
    assert!(loaded.warnings[0].contains("nobody can connect"), "{:?}", loaded.warnings);
}

#[test]
fn values_that_would_make_the_broker_useless_are_refused() {
    for (text, told) in [
        ("[logging]\nlevel = \"loud\"", "`loud` is no level"),
        ("[logging]\nlevel = \"info,polymq_mqtt=deubg\"", "`polymq_mqtt=deubg` is no level"),
        ("[limits]\nconnections = 0", "nobody could connect"),
        ("[listeners.mqtt]\nbind = [\":5672\"]", "both listen on 127.0.0.1:5672"),
        ("[auth.users]\nme = \"pw\"", "kept in the store"),
    ] {
        let shown = mistakes(text);
        assert!(shown.contains(told), "{text}: {shown}");
    }
    load("[logging]\nlevel = \"warn, polymq_mqtt=trace\"", &[], &[]).unwrap();
}
