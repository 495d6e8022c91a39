//! What `scripts/sim` calls: one seed in this process, or many, each in a process of its own.

use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use kvorum::stdx::clock::{Clock, SystemClock};
use kvorum::stdx::planted::{Bug, plant};

use crate::plan::Plan;
use crate::trace;
use crate::world::World;

const USAGE: &str = "\
sim --seed N [--trace [WORD …]]     one history; with the events that contain one of the words, or all
sim --plan FILE [--trace [WORD …]]  the history of a plan that was written down
sim --show N                        writes the plan of a seed
sim --planted NAME|all              how many seeds it takes to find a bug that is planted, begun within S seconds; --seed N runs with it
sim --planted kept                  whether each is found by the seed that is kept for it
sim --seeds A..B [--jobs J] [--limit S] [--twice]
                                    many histories, J at once, begun within S seconds; each twice to compare their traces
";

/// A run that takes longer than this stands still.
const PATIENCE: Duration = Duration::from_mins(2);

/// Seeds within which a planted bug must be found.
const PLANTED_SEEDS_MAX: u64 = 500;

/// The bugs that are found, each with a seed that does: to be renewed by `--planted all` when plans are drawn in another way.
const KEPT: &str = include_str!("planted.txt");

/// What was asked for.
#[derive(Default)]
struct Wanted {
    seeds: Option<(u64, u64)>,
    seed: Option<u64>,
    plan: Option<String>,
    show: Option<u64>,
    planted: Option<String>,
    jobs: usize,
    limit: Option<Duration>,
    is_twice: bool,
    trace: Option<Vec<String>>,
}

#[expect(clippy::print_stderr, clippy::print_stdout, reason = "what the program is for")]
pub(crate) fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = Wanted::parse(&words).and_then(|wanted| match wanted {
        Wanted { seeds: Some((from, to)), .. } => run_many(from, to, &wanted),
        Wanted { seed: Some(seed), .. } => {
            wanted.bugs()?.into_iter().for_each(|bug| plant(Some(bug)));
            run_one(&Plan::draw(seed), wanted.trace)
        }
        Wanted { planted: Some(name), .. } if name == "kept" => find_again(),
        Wanted { planted: Some(_), .. } => find_planted(&wanted),
        Wanted { plan: Some(path), .. } => {
            let text =
                std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
            run_one(&text.parse()?, wanted.trace)
        }
        Wanted { show: Some(seed), .. } => {
            print!("{}", Plan::draw(seed));
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

impl Wanted {
    fn parse(words: &[String]) -> Result<Self, String> {
        let mut wanted = Self { jobs: 2, ..Self::default() };
        let mut words = words.iter().map(String::as_str).peekable();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word {
                "--seed" => wanted.seed = Some(number(value()?)?),
                "--seeds" => {
                    let (from, to) = value()?.split_once("..").ok_or("seeds are A..B")?;
                    wanted.seeds = Some((number(from)?, number(to)?));
                }
                "--plan" => wanted.plan = Some(value()?.to_owned()),
                "--show" => wanted.show = Some(number(value()?)?),
                "--planted" => wanted.planted = Some(value()?.to_owned()),
                "--jobs" => wanted.jobs = number(value()?)?.clamp(1, 64) as usize,
                "--limit" => wanted.limit = Some(Duration::from_secs(number(value()?)?)),
                "--twice" => wanted.is_twice = true,
                "--trace" => wanted.trace = Some(words.by_ref().map(str::to_owned).collect()),
                other => return Err(format!("there is no {other}\n{USAGE}")),
            }
        }
        Ok(wanted)
    }
}

impl Wanted {
    /// The bugs that are meant.
    fn bugs(&self) -> Result<Vec<Bug>, String> {
        let Some(name) = &self.planted else { return Ok(Vec::new()) };
        let is_meant = |bug: &Bug| name == "all" || bug.name() == name;
        let meant: Vec<_> = Bug::ALL.iter().copied().filter(is_meant).collect();
        if meant.is_empty() { Err(format!("there is no bug {name}")) } else { Ok(meant) }
    }
}

/// Runs a seed with a bug: what is wrong then, in a line, if anything is.
fn find(bug: Bug, seed: u64) -> Option<String> {
    let why = run_child(seed, Some(bug)).err()?;
    let line = why.lines().find(|line| line.starts_with(&format!("seed {seed}:")));
    Some(line.unwrap_or(&why).to_owned())
}

/// Whether each bug is found by the seed that is kept for it.
#[expect(clippy::print_stdout, reason = "what the program is for")]
fn find_again() -> Result<(), String> {
    let mut missed = Vec::new();
    let lines = KEPT.lines().filter(|line| !line.starts_with('#'));
    let kept: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(' ')).collect();
    for (name, seed) in &kept {
        let bug = Bug::ALL.iter().copied().find(|bug| bug.name() == *name);
        let bug = bug.ok_or_else(|| format!("there is no bug {name}"))?;
        match find(bug, number(seed)?) {
            Some(why) => println!("{name}: {why}"),
            None => missed.push(*name),
        }
    }
    println!("{} planted bugs, {} missed", kept.len(), missed.len());
    if missed.is_empty() { Ok(()) } else { Err(format!("not found: {missed:?}")) }
}

/// Says by which seed each bug that is meant is found.
#[expect(clippy::print_stdout, reason = "what the program is for")]
fn find_planted(wanted: &Wanted) -> Result<(), String> {
    let mut missed = Vec::new();
    for bug in wanted.bugs()? {
        let clock = SystemClock::new();
        let in_time = |_: &u64| wanted.limit.is_none_or(|limit| passed(&clock) < limit);
        let mut seeds = (1..=PLANTED_SEEDS_MAX).take_while(in_time);
        match seeds.find_map(|seed| Some((seed, find(bug, seed)?))) {
            Some((seed, why)) => println!("{} {seed}\n    {why}", bug.name()),
            None => missed.push(bug.name()),
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(format!("not found: {missed:?}")) }
}

/// The real time since `clock` was made.
fn passed(clock: &SystemClock) -> Duration {
    Duration::from_micros(clock.monotonic().0)
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word} is no number"))
}

/// Lives through `plan` in this process and prints one line of what it came to.
#[expect(clippy::print_stdout, reason = "the line")]
fn run_one(plan: &Plan, shown: Option<Vec<String>>) -> Result<(), String> {
    listen(shown.is_some());
    if let Some(words) = shown {
        trace::show(words);
    }
    let clock = SystemClock::new();
    let seed = plan.seed;
    let mut world = World::new(plan.clone());
    let outcome = world.run();
    let (hash, events) = trace::digest();
    let real = passed(&clock).as_secs_f64();
    // What is left of the world is the system's to tidy up.
    std::mem::forget(world);
    match outcome {
        Ok(report) => {
            println!(
                "seed {seed} ok trace {hash:016x} events {events} virtual_s {:.1} real_s {real:.2} judged {} leaders {} calm_ms {}",
                Duration::from_millis(report.virtual_ms).as_secs_f64(),
                report.judged,
                report.leaders,
                report.calm_ms
            );
            Ok(())
        }
        Err(violation) => {
            println!("seed {seed} FAILED trace {hash:016x} events {events}");
            let last = trace::last_lines().join("\n");
            Err(format!("{last}\n\nseed {seed}: {violation}\n\nplan:\n{plan}"))
        }
    }
}

/// Has panics and the nodes' logs told to the trace.
fn listen(is_shown: bool) {
    use tracing_subscriber::layer::SubscriberExt;

    let level = if is_shown { tracing::Level::INFO } else { tracing::Level::WARN };
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_timer(trace::VirtualTime)
        .with_writer(|| trace::LogLines);
    let level = tracing_subscriber::filter::LevelFilter::from_level(level);
    let subscriber = tracing_subscriber::registry().with(level).with(lines);
    tracing::subscriber::set_global_default(subscriber).expect("nobody listens yet");
    std::panic::set_hook(Box::new(|info| {
        trace::panicked(format!("{info}\n{}", std::backtrace::Backtrace::force_capture()));
    }));
}

/// What many runs came to.
#[derive(Default)]
struct Tally {
    runs: u32,
    virtual_s: f64,
    failed: Vec<u64>,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "what the program is for")]
fn run_many(from: u64, to: u64, wanted: &Wanted) -> Result<(), String> {
    let clock = Arc::new(SystemClock::new());
    let next = Arc::new(AtomicU64::new(from));
    let tally = Arc::new(Mutex::new(Tally::default()));
    let (limit, is_twice) = (wanted.limit, wanted.is_twice);
    let worker = || {
        let (next, tally, clock) = (Arc::clone(&next), Arc::clone(&tally), Arc::clone(&clock));
        thread::spawn(move || {
            while limit.is_none_or(|limit| passed(&clock) < limit) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= to {
                    return;
                }
                let outcome = run_child(seed, None).and_then(|first| {
                    if is_twice { compare(&first, &run_child(seed, None)?) } else { Ok(first) }
                });
                let mut tally = tally.lock().unwrap();
                tally.runs += 1;
                match outcome {
                    Ok(line) => tally.virtual_s += field(&line, "virtual_s").parse().unwrap_or(0.0),
                    Err(why) => {
                        eprintln!("{why}");
                        tally.failed.push(seed);
                    }
                }
            }
        })
    };
    let workers: Vec<_> = (0..wanted.jobs).map(|_| worker()).collect();
    for worker in workers {
        worker.join().expect("a worker only starts processes");
    }
    let (tally, real) = (tally.lock().unwrap(), passed(&clock).as_secs_f64());
    println!(
        "{} seeds, {} failed; {:.0} seeds a minute, {:.0} virtual seconds a second",
        tally.runs,
        tally.failed.len(),
        f64::from(tally.runs) * 60.0 / real,
        tally.virtual_s / real
    );
    if tally.runs == 0 {
        return Err("no seed was run".to_owned());
    }
    if tally.failed.is_empty() { Ok(()) } else { Err(format!("failed: {:?}", tally.failed)) }
}

/// Runs one seed in a process of its own, with a bug or as it should be; the line it prints.
fn run_child(seed: u64, planted: Option<Bug>) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let child = Command::new(program)
        .args(["--seed", &seed.to_string()])
        .args(planted.iter().flat_map(|bug| ["--planted", bug.name()]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| error.to_string())?;
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let id = child.id().to_string();
    let watchdog = thread::spawn(move || {
        if is_done.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _killed = Command::new("kill").args(["-9", &id]).status();
        }
    });
    let (mut out, mut complaint) = (String::new(), String::new());
    // What fails is written at the end and is more than a pipe holds, so both are read, one after the other.
    let mut stderr = child.stderr.take().expect("piped");
    let reader = thread::spawn(move || {
        let _read = std::io::Read::read_to_string(&mut stderr, &mut complaint);
        complaint
    });
    let _read = std::io::Read::read_to_string(child.stdout.as_mut().expect("piped"), &mut out);
    let status = child.wait().map_err(|error| error.to_string())?;
    drop(done);
    let _watched = watchdog.join();
    let complaint = reader.join().unwrap_or_default();
    if status.success() {
        Ok(out)
    } else {
        Err(format!("seed {seed} fails ({status}):\n{complaint}"))
    }
}

fn compare(first: &str, second: &str) -> Result<String, String> {
    let same = |name| field(first, name) == field(second, name);
    if same("trace") && same("events") {
        Ok(first.to_owned())
    } else {
        Err(format!("one seed, two histories:\n  {first}  {second}"))
    }
}

/// The word behind `name`.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let mut words = line.split_whitespace().skip_while(|word| *word != name);
    words.nth(1).unwrap_or_default()
}
