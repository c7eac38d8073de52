//! The command line of the benchmark.
#![forbid(unsafe_code)]

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use polymq_bench::amqp::Login;
use polymq_bench::compare::{self, Options, Sample, SampleResult};
use polymq_bench::peers::{Peer, STOMP_QUEUES};
use polymq_bench::process::Tree;
use polymq_bench::rows::{self, Row};
use polymq_bench::work::{Effort, Target};
use polymq_bench::{broker, relay, report};

/// Load generator and comparison of message brokers.
#[derive(Parser)]
#[command(name = "polymq-bench", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Task>,
    #[command(flatten)]
    compare: CompareArgs,
}

#[derive(Subcommand)]
enum Task {
    /// Start each broker, run the same rows against each in turn, print the medians; the default.
    Compare(CompareArgs),
    /// Drive one broker that is already running, for profiling it.
    Run(RunArgs),
    /// List the rows with their goals.
    List,
    /// Copy a publisher's bytes to the subscriber unread; a peer of `compare`.
    #[command(hide = true)]
    Relay {
        /// Port to listen on.
        #[arg(long)]
        port: u16,
    },
}

/// How long and how much.
#[derive(Args)]
struct EffortArgs {
    /// Seconds counted per row.
    #[arg(long, default_value_t = 5.0)]
    secs: f64,
    /// Messages in the rows that fill and drain a queue.
    #[arg(long, default_value_t = 1_000_000)]
    backlog: u64,
    /// Connections in the rows about their memory.
    #[arg(long, default_value_t = 2000)]
    connections: usize,
    /// Most messages under way per queue or topic, instead of the row's own number.
    #[arg(long)]
    credit: Option<u64>,
    /// Publish this many messages in all and count to the last, instead of for a time.
    #[arg(long)]
    messages: Option<u64>,
}

impl EffortArgs {
    fn effort(&self) -> Result<Effort> {
        let measure = Duration::try_from_secs_f64(self.secs).context("--secs")?;
        let Self { backlog, connections, credit, messages, .. } = *self;
        Ok(Effort { measure, backlog, connections, credit, messages })
    }
}

#[derive(Args)]
struct CompareArgs {
    /// Rows by name, as `list` prints them; all when absent.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Brokers; PolyMQ and every peer found when absent.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Repetitions, interleaved; the report shows medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// One round of one second with small backlogs: a check that everything runs.
    #[arg(long)]
    quick: bool,
    /// The broker of this project.
    #[arg(long)]
    polymq: Option<PathBuf>,
    /// Where brokers keep their data; use a real disk for the persistent rows.
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// CPUs the brokers may use, as `taskset -c` takes them.
    #[arg(long)]
    broker_cpus: Option<String>,
    /// Write medians and all samples to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Show spread, memory and the generator's own cost too.
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    effort: EffortArgs,
}

#[derive(Args)]
struct RunArgs {
    /// Row by name, as `list` prints them.
    row: String,
    /// Listener of the row's protocol.
    #[arg(long)]
    addr: Option<SocketAddr>,
    /// AMQP listener, for rows that need both.
    #[arg(long)]
    amqp: Option<SocketAddr>,
    /// MQTT listener, for rows that need both.
    #[arg(long)]
    mqtt: Option<SocketAddr>,
    /// Process of the broker, to report its CPU time and memory.
    #[arg(long)]
    pid: Option<u32>,
    /// User for AMQP.
    #[arg(long, default_value = "guest")]
    user: String,
    /// Password for AMQP.
    #[arg(long, default_value = "guest")]
    password: String,
    /// User for MQTT; anonymous when absent.
    #[arg(long, requires = "mqtt_password")]
    mqtt_user: Option<String>,
    /// Password for MQTT.
    #[arg(long, requires = "mqtt_user")]
    mqtt_password: Option<String>,
    #[command(flatten)]
    effort: EffortArgs,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.command {
        None => run_compare(cli.compare),
        Some(Task::Compare(args)) => run_compare(args),
        Some(Task::Run(args)) => run_one(args),
        Some(Task::List) => list(),
        Some(Task::Relay { port }) => relay::serve(port),
    }
}

/// Prints a line; a reader that went away is no reason to fail.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints progress beside the report.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn list() -> Result<()> {
    for row in rows::all() {
        let (first, goal) = report::steps(&row);
        say(&format!("{:<15} {:<68} {first:<24} {goal}", row.name, row.title));
    }
    Ok(())
}

fn run_compare(mut args: CompareArgs) -> Result<()> {
    if args.quick {
        args.rounds = 1;
        args.effort.secs = args.effort.secs.min(1.0);
        args.effort.backlog = args.effort.backlog.min(50_000);
        args.effort.connections = args.effort.connections.min(500);
    }
    raise_descriptor_limit();
    end_brokers_on_signals()?;
    let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let options = Options {
        rows: chosen_rows(&args.rows)?,
        peers: chosen_peers(&args)?,
        rounds: args.rounds.max(1),
        effort: args.effort.effort()?,
        scratch,
        cpus: args.broker_cpus.clone(),
    };
    let samples = compare::run(&options, |sample| note(&progress(sample)))?;
    say(&format!("{}\n", report::machine()));
    say(&report::markdown(&options, &samples, args.verbose));
    if let Some(file) = &args.json {
        report::write_json(file, &options, &samples)?;
    }
    Ok(())
}

fn progress(sample: &Sample) -> String {
    let Sample { row, peer, round, result } = sample;
    let words = match (result, rows::find(row)) {
        (SampleResult::Outcome(median), Some(row)) => {
            let summary = report::Summary { median: *median, spread: 0.0, runs: 1 };
            let generator = median.generator_us.map_or(0.0, |us| us);
            format!("{} (generator {generator:.2} us)", report::cell(&row, &summary, false))
        }
        (SampleResult::Failure(why), _) => format!("FAILED: {why}"),
        (SampleResult::Outcome(_), None) => String::new(),
    };
    format!("round {round}  {row:<15} {peer:<10} {words}")
}

fn chosen_rows(names: &[String]) -> Result<Vec<Row>> {
    if names.is_empty() {
        return Ok(rows::all());
    }
    let row = |name: &String| rows::find(name).with_context(|| format!("no row `{name}`"));
    names.iter().map(row).collect()
}

fn chosen_peers(args: &CompareArgs) -> Result<Vec<(Peer, PathBuf)>> {
    let polymq = args.polymq.clone().unwrap_or_else(default_polymq);
    let usual = [
        Peer::PolyMq,
        Peer::RabbitMq,
        Peer::ActiveMq,
        Peer::Mosquitto,
        Peer::LavinMq,
        Peer::Emqx,
        Peer::Nats,
        Peer::Rumqttd,
    ];
    let wanted = if args.peers.is_empty() { usual.to_vec() } else { args.peers.clone() };
    let mut found = Vec::new();
    for peer in wanted {
        match peer.find(&polymq) {
            Some(program) => found.push((peer, program)),
            None if peer == Peer::PolyMq => note(&format!(
                "PolyMQ is left out: no `{}`; run `cargo build --release -p polymq-server`",
                polymq.display()
            )),
            None if args.peers.is_empty() => {}
            None => note(&format!("{} is left out: not installed", peer.title())),
        }
    }
    if found.is_empty() {
        bail!("no broker to measure");
    }
    Ok(found)
}

fn default_polymq() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    target.join("release/polymq")
}

/// Thousands of connections need as many descriptors; brokers inherit the limit.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Without more descriptors only the rows about idle connections fail, and say why.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn end_brokers_on_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            broker::clear_all();
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

fn run_one(args: RunArgs) -> Result<()> {
    raise_descriptor_limit();
    let row = rows::find(&args.row).with_context(|| format!("no row `{}`", args.row))?;
    let mqtt_login =
        args.mqtt_user.zip(args.mqtt_password).map(|(user, password)| Login { user, password });
    let target = Target {
        amqp: args.amqp.or(args.addr),
        mqtt: args.mqtt.or(args.addr),
        stomp: args.addr,
        stomp_queues: STOMP_QUEUES,
        http: args.addr,
        xmpp: args.addr,
        login: Login { user: args.user, password: args.password },
        mqtt_login,
    };
    let tree = args.pid.map_or_else(Tree::default, |pid| Tree::of(&[pid]));
    let results = compare::run_on(&target, &row, &args.effort.effort()?, &tree)?;
    for (name, median) in results {
        let summary = report::Summary { median, spread: 0.0, runs: 1 };
        say(&format!("{name}: {}", report::cell(&row, &summary, true)));
    }
    Ok(())
}
