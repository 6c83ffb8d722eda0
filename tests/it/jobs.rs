//! Jobs: on time, once, whoever is killed, and what becomes of their results.
//!
//! Time is an argument: a day passes as fast as it can be looked at. The database, the processes
//! that share it, the model's server and the receivers of webhooks are real.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use omni::agent::Agent;
use omni::clock::{Clock, Reach, Setting, webhook};
use omni::config::{self, Config};
use omni::hub::Hub;
use omni::hub::budget::Calendar;
use omni::llm::{Model, Scripted, detect};
use omni::message::Role;
use omni::schedule::Schedule;
use omni::session::{Entry, Sessions};
use omni::shutdown::Shutdown;
use omni::store::Store;
use omni::store::job::{Deliver, Delivery, Job, Jobs, New, Overlap, Run, Stage, State, Task};
use omni::store::lease::Owner;
use omni::tool::{self, Annotations, Call, Output, Policy, Spec, Toolbox, Toolset};
use serde_json::{Map, json};
use tokio::sync::Semaphore;

use crate::support::database::{Database, on_both};
use crate::support::http::Door;
use crate::support::inbox::Inbox;
use crate::support::kill::{self, until};
use crate::support::omni::World;
use crate::support::tools;
use crate::support::vendor::Vendor;

const BERLIN: &str = "Europe/Berlin";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A clock that stands until it is set.
#[derive(Clone)]
struct Wall(Arc<AtomicI64>);

impl Wall {
    fn at(text: &str) -> Self {
        Self(Arc::new(AtomicI64::new(at(text).as_millisecond())))
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.0.load(SeqCst)).expect("a time")
    }

    fn set(&self, time: Timestamp) {
        assert!(time >= self.now(), "time goes on");
        self.0.store(time.as_millisecond(), SeqCst);
    }

    fn pass(&self, span: SignedDuration) {
        self.set(self.now() + span);
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// Tools that tell when they were called: one at once, one when it is let go.
struct Bell {
    wall: Wall,
    rung: Mutex<Vec<Timestamp>>,
    hold: Semaphore,
}

#[async_trait]
impl Toolset for Bell {
    fn specs(&self) -> Vec<Arc<Spec>> {
        let annotations = |destructive| Annotations { destructive, ..Annotations::default() };
        let spec = |name: &str, destructive| {
            Arc::new(Spec {
                name: name.to_owned(),
                description: "Ring.".to_owned(),
                input: json!({"type": "object"}),
                annotations: annotations(destructive),
                ..Spec::default()
            })
        };
        vec![spec("bell.ring", false), spec("bell.hold", false), spec("bell.break", true)]
    }

    async fn call(&self, call: Call) -> Result<Output, tool::Error> {
        self.rung.lock().unwrap().push(self.wall.now());
        if call.spec.name == "bell.hold" {
            tokio::select! {
                permit = self.hold.acquire() => permit.expect("open").forget(),
                () = call.context.cancel.cancelled() => return Err(tool::Error::Cancelled),
            }
        }
        Ok(Output::text("ding"))
    }
}

/// What one process has of it.
struct House {
    wall: Wall,
    hub: Arc<Hub>,
    clock: Arc<Clock>,
    bell: Arc<Bell>,
    folder: PathBuf,
    shutdown: Shutdown,
}

struct Plan<'a> {
    model: Arc<dyn Model>,
    tokens: u64,
    hosts: &'a [&'a str],
}

impl Plan<'_> {
    fn of(script: &str) -> Self {
        Self { model: Arc::new(Scripted::parse("test", script).expect("a script")), tokens: 0, hosts: &[] }
    }
}

impl House {
    fn open(store: Store, folder: &Path, wall: &Wall) -> Self {
        Self::planned(store, folder, wall, &Plan::of(r#"{"text": "There it is.", "loop": true}"#))
    }

    fn planned(store: Store, folder: &Path, wall: &Wall, plan: &Plan<'_>) -> Self {
        let wall = wall.clone();
        let bell = Arc::new(Bell { wall: wall.clone(), rung: Mutex::default(), hold: Semaphore::new(0) });
        let toolbox = Toolbox::new(
            vec![bell.clone()],
            tool::Settings { policy: Policy::default(), ..tools::settings() },
        );
        let agent = Agent::new(
            plan.model.clone(),
            Arc::new(toolbox),
            Config::default().limits,
            folder.to_owned(),
            Arc::new(Vec::new),
        );
        let shutdown = Shutdown::default();
        let hub = Hub::new(Arc::new(agent), Sessions::new(store.clone()), store, shutdown.clone());
        let time = wall.clone();
        let setting = Setting {
            tokens: plan.tokens,
            calendar: Calendar {
                zone: TimeZone::get(BERLIN).expect("a zone"),
                now: Arc::new(move || time.now()),
            },
            output: folder.join("output"),
            webhook: webhook::Setting {
                secret: Some(SECRET.to_owned()),
                hosts: plan.hosts.iter().map(|host| (*host).to_owned()).collect(),
            },
        };
        let clock = Clock::new(hub.clone(), setting, Reach::All, shutdown.clone());
        Self { wall, hub, clock, bell, folder: folder.to_owned(), shutdown }
    }

    fn jobs(&self) -> &Jobs {
        self.hub.jobs()
    }

    /// A tool, rung by the schedule.
    async fn ring(&self, when: &str) -> Job {
        self.call("bell.ring", when, Overlap::Skip, Deliver::Nobody).await
    }

    async fn call(&self, tool: &str, when: &str, overlap: Overlap, deliver: Deliver) -> Job {
        let task = Task::Call { tool: tool.to_owned(), arguments: Map::new() };
        self.add(task, when, overlap, deliver).await
    }

    async fn ask(&self, ask: &str, when: &str, deliver: Deliver) -> Job {
        self.add(Task::Ask { ask: ask.to_owned() }, when, Overlap::Skip, deliver).await
    }

    async fn add(&self, task: Task, when: &str, overlap: Overlap, deliver: Deliver) -> Job {
        let schedule = Schedule::parse(when, BERLIN, self.wall.now()).expect("a schedule");
        let (name, session, workspace) = (String::new(), String::new(), self.folder.clone());
        let new = New { name, workspace, session, task, schedule, overlap, deliver };
        self.jobs().add(&new, self.wall.now()).await.expect("it is planned")
    }

    /// Does what there is to do now, all of it.
    async fn now(&self) {
        loop {
            self.clock.tick().await.expect("the database works");
            self.clock.settled().await;
            let outlook = self.jobs().outlook(&self.folder).await.expect("the database works");
            let is_due = |time: Option<Timestamp>| time.is_some_and(|time| time <= self.wall.now());
            if outlook.live == 0 && !is_due(outlook.next) && !is_due(outlook.again) {
                return;
            }
        }
    }

    /// Lets time pass, from one thing to do to the next.
    async fn until(&self, end: Timestamp) {
        loop {
            self.now().await;
            let outlook = self.jobs().outlook(&self.folder).await.expect("the database works");
            let next = [outlook.next, outlook.again].into_iter().flatten().min();
            match next.filter(|next| *next <= end) {
                Some(next) => self.wall.set(next),
                None => break,
            }
        }
        self.wall.set(end);
    }

    fn rung(&self) -> Vec<Timestamp> {
        self.bell.rung.lock().unwrap().clone()
    }

    async fn runs(&self, job: &Job) -> Vec<Run> {
        all(self.jobs(), job).await
    }

    async fn run(&self, job: &Job) -> Run {
        self.runs(job).await.pop().expect("it has one")
    }
}

on_both! {
    async fn a_schedule_is_kept_to_the_second(database: Database) {
        let wall = Wall::at("2026-11-30T08:00:00Z");
        let house = House::open(database.open().await, &database.data(), &wall);
        let job = house.ring("*/20 * * * * *").await;
        house.until(at("2026-11-30T08:10:00Z")).await;
        let expected: Vec<_> = (1..=30).map(|step| at("2026-11-30T08:00:00Z") + SignedDuration::from_secs(20 * step)).collect();
        assert_eq!(house.rung(), expected);
        let runs = house.runs(&job).await;
        assert_eq!(runs.iter().map(|run| run.due).collect::<Vec<_>>(), expected);
        assert!(runs.iter().all(|run| run.state == Stage::Done && run.output == "ding" && run.attempt == 1), "{runs:?}");
    }

    async fn of_two_processes_one_does_it(database: Database) {
        let wall = Wall::at("2026-11-30T08:00:00Z");
        let one = House::open(database.open().await, &database.data(), &wall);
        let other = House::open(database.open().await, &database.data(), &wall);
        one.ring("every 1m").await;
        let other_job = other.call("bell.hold", "every 1m", Overlap::Queue, Deliver::Nobody).await;
        one.bell.hold.add_permits(1000);
        other.bell.hold.add_permits(1000);
        for _ in 0..20 {
            wall.pass(SignedDuration::from_secs(60));
            tokio::join!(one.now(), other.now());
        }
        let mut rung = [one.rung(), other.rung()].concat();
        rung.sort();
        let expected: Vec<_> = (1..=20).flat_map(|step| [at("2026-11-30T08:00:00Z") + SignedDuration::from_secs(60 * step); 2]).collect();
        assert_eq!(rung, expected, "each of both jobs once a minute");
        assert_eq!(one.runs(&other_job).await.len(), 20);
    }

    async fn what_was_missed_is_made_up_for_once(database: Database) {
        let wall = Wall::at("2026-11-30T08:00:00Z");
        let job = {
            let house = House::open(database.open().await, &database.data(), &wall);
            let job = house.ring("every 1m").await;
            house.until(at("2026-11-30T08:02:30Z")).await;
            assert_eq!(house.rung().len(), 2);
            job
        };
        wall.set(at("2026-11-30T14:10:10Z"));
        let house = House::open(database.open().await, &database.data(), &wall);
        house.now().await;
        assert_eq!(house.rung(), [at("2026-11-30T14:10:10Z")], "one run for six hours");
        house.until(at("2026-11-30T14:12:30Z")).await;
        assert_eq!(house.rung()[1..], [at("2026-11-30T14:11:00Z"), at("2026-11-30T14:12:00Z")]);
        assert_eq!(house.runs(&job).await.len(), 5);
    }

    async fn a_run_whose_process_was_killed_is_taken_up_by_one_other(database: Database) {
        let wall = Wall::at("2026-11-30T08:00:00Z");
        let one = House::open(database.open().await, &database.data(), &wall);
        let other = House::open(database.open().await, &database.data(), &wall);
        let job = one.ring("now").await;
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        one.jobs().fall_due(&one.folder, &|_| true, wall.now()).await.unwrap();
        let queued = one.jobs().queued(&one.folder).await.unwrap();
        let taken = one.jobs().take(&queued[0], &Owner::of(child.id()), wall.now()).await.unwrap();
        assert_eq!(taken.expect("it was free").run.attempt, 1);
        // Alive, it has the run, however little it says in a second.
        wall.pass(SignedDuration::from_secs(1));
        one.clock.tick().await.unwrap();
        one.clock.settled().await;
        assert_eq!((one.rung().len(), one.run(&job).await.state), (0, Stage::Running));

        child.kill().unwrap();
        child.wait().unwrap();
        tokio::join!(one.now(), other.now());
        assert_eq!(one.rung().len() + other.rung().len(), 1, "once");
        let run = one.run(&job).await;
        assert_eq!((run.state, run.attempt), (Stage::Done, 2));
    }

    async fn a_run_that_kills_its_process_each_time_comes_to_an_end(database: Database) {
        let wall = Wall::at("2026-11-30T08:00:00Z");
        let house = House::open(database.open().await, &database.data(), &wall);
        let job = house.ring("now").await;
        house.jobs().fall_due(&house.folder, &|_| true, wall.now()).await.unwrap();
        let mut deaths = 0;
        while let Some(run) = house.jobs().queued(&house.folder).await.unwrap().pop() {
            let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
            let owner = Owner::of(child.id());
            house.jobs().take(&run, &owner, wall.now()).await.unwrap().expect("it was free");
            child.kill().unwrap();
            child.wait().unwrap();
            deaths += 1;
            let left = house.jobs().running(&house.folder).await.unwrap();
            assert!(house.jobs().inherit(&left[0], &Owner::new(), wall.now()).await.unwrap());
        }
        let run = house.run(&job).await;
        assert_eq!((deaths, run.state), (3, Stage::Failed));
        assert!(run.error.contains("killed 3 times"), "{}", run.error);
    }

    async fn a_result_is_told_to_a_chat_once_with_what_it_answers(database: Database) {
        let wall = Wall::at("2026-11-30T08:00:00Z");
        let one = House::open(database.open().await, &database.data(), &wall);
        let other = House::open(database.open().await, &database.data(), &wall);
        let chat = one.hub.session("chat-1").await.unwrap();
        let job = one.ask("Look for the heron.", "now", Deliver::Chat(chat.clone())).await;
        tokio::join!(one.now(), other.now());
        let run = one.run(&job).await;
        assert_eq!((run.state, run.delivery, run.output.as_str()), (Stage::Done, Delivery::Done, "There it is."));
        let messages: Vec<_> = one.hub.sessions().show(&chat).await.unwrap().into_iter()
            .filter_map(|stored| match stored.entry { Entry::Message(message) => Some(message), _ => None }).collect();
        let roles: Vec<_> = messages.iter().map(|message| message.role).collect();
        assert_eq!(roles, [Role::User, Role::Assistant]);
        assert!(messages[0].text().contains("Look for the heron."), "{}", messages[0].text());
        assert!(messages[1].text().ends_with("There it is."), "{}", messages[1].text());
        // Its own turn is in a session of its own.
        assert_eq!(run.session, format!("job:{}:{}", job.id, run.id));
        assert!(one.hub.sessions().show(&run.session).await.unwrap().len() > 2);

        let unread = one.jobs().unread(&chat).await.unwrap();
        assert_eq!(unread.iter().map(|(chat, _, run)| (chat.as_str(), run.id.as_str())).collect::<Vec<_>>(), [("chat-1", run.id.as_str())]);
        assert_eq!(one.jobs().unread("chat-2").await.unwrap().len(), 0);
        let mut write = one.jobs().begin().await.unwrap();
        one.jobs().read(&mut write, &run.id).await.unwrap();
        write.commit().await.unwrap();
        assert_eq!(one.jobs().unread(&chat).await.unwrap().len(), 0);
    }

    async fn the_tokens_of_a_day_are_counted_over_all_processes_and_limited(database: Database) {
        let wall = Wall::at("2026-11-30T08:00:00Z");
        let plan = || Plan { tokens: 1000, ..Plan::of(r#"{"text": "yes", "usage": {"input": 500, "output": 100}, "loop": true}"#) };
        let one = House::planned(database.open().await, &database.data(), &wall, &plan());
        let job = one.ask("Look.", "every 1h", Deliver::Nobody).await;
        one.until(at("2026-11-30T09:30:00Z")).await;
        let other = House::planned(database.open().await, &database.data(), &wall, &plan());
        other.until(at("2026-12-01T00:30:00Z")).await;
        let states: Vec<_> = one.runs(&job).await.iter().map(|run| (run.state, run.tokens)).collect();
        // Berlin's midnight is 23:00: 9:00 to 22:00 are of one day, 23:00 and 0:00 of the next.
        let expected = [vec![(Stage::Done, 600); 2], vec![(Stage::Failed, 0); 12], vec![(Stage::Done, 600); 2]].concat();
        assert_eq!(states, expected);
        let failed = one.runs(&job).await[2].clone();
        assert!(failed.error.contains("1000 tokens") && failed.error.contains("jobs.tokens"), "{}", failed.error);
    }
}

/// Plays seconds from the one it is told on, and says when one is over: what `a_kill_…` kills.
#[tokio::test]
#[ignore = "is run by the test that kills it"]
async fn seconds_that_pass() {
    let told = |name: &str| std::env::var(name).expect("the parent says so");
    let folder = PathBuf::from(told("OMNI_TEST_FOLDER"));
    let store = Store::open(None, &folder).await.expect("the database opens");
    let house = House::open(store, &folder, &Wall::at(&told("OMNI_TEST_BEGIN")));
    loop {
        house.now().await;
        kill::acknowledge(&house.wall.now().to_string());
        house.wall.pass(SignedDuration::from_secs(1));
    }
}

#[tokio::test]
async fn a_kill_at_any_moment_loses_nothing_and_doubles_nothing() {
    let (database, begin) = (Database::sqlite(), "2026-11-30T08:00:00Z");
    let wall = Wall::at(begin);
    let house = House::open(database.open().await, &database.data(), &wall);
    let chat = Deliver::Chat(house.hub.session("chat").await.unwrap());
    let job = house.call("bell.ring", "* * * * * *", Overlap::Skip, chat).await;
    let asked = house.ask("Look.", "*/2 * * * * *", Deliver::File("{time}.md".to_owned())).await;
    let mut last = begin.to_owned();
    for _ in 0..kill::rounds() {
        let mut child = kill::child("jobs::seconds_that_pass");
        child.env("OMNI_TEST_FOLDER", database.data()).env("OMNI_TEST_BEGIN", &last);
        let heard = kill::run_and_kill(child, Duration::from_millis(300));
        // The second that went on when it was killed begins again.
        last = heard.last().expect("it says something").clone();
    }
    // What was not acknowledged may be done already.
    house.until(at(&last) + SignedDuration::from_secs(2)).await;
    let seconds = wall.now().duration_since(at(begin)).as_secs();
    for job in [&job, &asked] {
        let job = house.jobs().find(&job.id).await.unwrap();
        house.jobs().pause(&job, wall.now()).await.unwrap();
    }
    // Who was to be told when it was killed is told a while later.
    house.until(wall.now() + SignedDuration::from_mins(1)).await;
    for (job, step) in [(&job, 1), (&asked, 2)] {
        let runs = all(house.jobs(), job).await;
        let due: Vec<_> = runs.iter().map(|run| run.due.as_second() - at(begin).as_second()).collect();
        let first = due[0];
        let expected: Vec<_> = (first..=seconds).step_by(step).collect();
        assert_eq!(due, expected, "each time once");
        let is_done = |run: &&Run| run.state == Stage::Done && run.delivery == Delivery::Done;
        assert_eq!(runs.iter().find(|run| !is_done(run)), None);
    }
    let mut told = std::collections::BTreeMap::new();
    for stored in house.hub.sessions().show("chat").await.unwrap() {
        *told.entry(stored.turn).or_insert(0) += 1;
    }
    assert!(told.values().all(|entries| *entries == 2), "a note and an answer for each: {told:?}");
    let runs = all(house.jobs(), &job).await;
    assert!(runs.iter().all(|run| told.contains_key(&run.id)), "nothing is missing");
    assert_eq!(told.len() as i64, seconds, "one for each second");
}

/// All runs that are kept, the oldest first.
async fn all(jobs: &Jobs, job: &Job) -> Vec<Run> {
    let mut runs = jobs.runs(&job.id, 1000).await.expect("the database works");
    runs.reverse();
    runs
}

#[tokio::test]
async fn an_idle_day_asks_no_model_and_is_on_time() {
    let (database, vendor) = (Database::sqlite(), Vendor::start().await);
    let wall = Wall::at("2026-11-30T00:00:00Z");
    let environment = |name: &str| match name {
        "OPENAI_API_KEY" => Some("sk-test".to_owned()),
        "OPENAI_BASE_URL" => Some(vendor.openai_url()),
        _ => None,
    };
    let settings = config::Model { name: "openai/gpt-4o".to_owned(), ..Config::default().model };
    let model = detect::choose(&settings, &Config::default().provider, &environment).await.expect("a model");
    let plan = Plan { model, tokens: 0, hosts: &[] };
    let house = House::planned(database.open().await, &database.data(), &wall, &plan);
    house.ring("every 10m").await;
    house.ring("30 7 * * *").await;
    let paused = house.ask("Look at the mail.", "every 1m", Deliver::Nobody).await;
    house.jobs().pause(&paused, wall.now()).await.unwrap();
    house.ask("Happy new year!", "at 2027-01-01 00:00", Deliver::Nobody).await;
    house.until(at("2026-12-01T00:00:00Z")).await;

    let mut expected: Vec<_> =
        (1..=144).map(|step| at("2026-11-30T00:00:00Z") + SignedDuration::from_mins(10 * step)).collect();
    expected.push(at("2026-11-30T06:30:00Z"));
    expected.sort();
    assert_eq!(house.rung(), expected);
    assert_eq!(vendor.requests().len(), 0, "nobody was asked");
}

#[tokio::test]
async fn a_daily_schedule_goes_through_restarts_and_both_changes_of_the_clock() {
    for (from, middle, to, day) in [
        ("2026-10-23T12:00:00Z", "2026-10-25T00:30:00Z", "2026-10-28T00:00:00Z", 24),
        ("2027-03-26T12:00:00Z", "2027-03-28T00:59:59Z", "2027-03-31T00:00:00Z", 27),
    ] {
        let (database, wall) = (Database::sqlite(), Wall::at(from));
        let mut rung = Vec::new();
        let first = House::open(database.open().await, &database.data(), &wall);
        first.ring("every day at 8:00").await;
        for end in [middle, to] {
            // A process of its own, down for the last seconds before each end.
            let house = House::open(database.open().await, &database.data(), &wall);
            house.until(at(end) - SignedDuration::from_secs(40)).await;
            wall.set(at(end));
            rung.extend(house.rung());
            assert!(house.shutdown.finish(Duration::from_secs(10)).await);
        }
        let local = |time: &Timestamp| time.in_tz(BERLIN).unwrap().strftime("%d %H:%M:%S").to_string();
        let rung: Vec<_> = rung.iter().map(local).collect();
        let expected: Vec<_> = (day..day + rung.len()).map(|day| format!("{day} 08:00:00")).collect();
        assert_eq!(rung, expected);
        assert_eq!(rung.len(), 4, "each day from {from} to {to}");
    }
}

#[tokio::test]
async fn a_time_at_which_it_still_goes_on_is_left_out_or_waits() {
    for (overlap, expected) in [(Overlap::Skip, (1, 0, 12)), (Overlap::Queue, (1, 8, 4))] {
        let (database, wall) = (Database::sqlite(), Wall::at("2026-11-30T08:00:00Z"));
        let house = House::open(database.open().await, &database.data(), &wall);
        let job = house.call("bell.hold", "every 1m", overlap, Deliver::Nobody).await;
        for _ in 0..13 {
            wall.pass(SignedDuration::from_secs(60));
            house.clock.tick().await.unwrap();
        }
        let count = |runs: &[Run], stage| runs.iter().filter(|run| run.state == stage).count();
        let (runs, now) = (house.runs(&job).await, house.jobs().find(&job.id).await.unwrap());
        assert_eq!(
            (count(&runs, Stage::Running), count(&runs, Stage::Queued), now.skipped),
            expected,
            "{overlap:?}"
        );
        house.bell.hold.add_permits(100);
        house.now().await;
        let runs = house.runs(&job).await;
        assert_eq!(count(&runs, Stage::Done), runs.len());
        assert_eq!(house.rung().len(), runs.len(), "each once, one after the other");
    }
}

#[tokio::test]
async fn what_goes_on_can_be_cancelled_and_a_schedule_goes_on() {
    let (database, wall) = (Database::sqlite(), Wall::at("2026-11-30T08:00:00Z"));
    let house = House::open(database.open().await, &database.data(), &wall);
    let job = house.call("bell.hold", "every 1h", Overlap::Queue, Deliver::File("x".to_owned())).await;
    for _ in 0..2 {
        wall.pass(SignedDuration::from_hours(1));
        house.clock.tick().await.unwrap();
    }
    // From another process: it has only the database.
    let other = Jobs::new(database.open().await);
    assert_eq!(other.cancel(&job, wall.now()).await.unwrap(), 2);
    house.now().await;
    let states: Vec<_> = house.runs(&job).await.iter().map(|run| (run.state, run.delivery)).collect();
    assert_eq!(states, [(Stage::Cancelled, Delivery::None); 2]);
    let job = other.find(&job.id).await.unwrap();
    assert_eq!((job.state, job.next), (State::Active, Some(at("2026-11-30T11:00:00Z"))));

    let once = house.ring("in 1h").await;
    other.cancel(&once, wall.now()).await.unwrap();
    house.until(at("2026-11-30T10:59:00Z")).await;
    assert_eq!(house.runs(&once).await, []);
    assert_eq!(other.find(&once.id).await.unwrap().state, State::Over);
}

#[tokio::test]
async fn a_process_that_ends_leaves_its_run_to_the_next() {
    let (database, wall) = (Database::sqlite(), Wall::at("2026-11-30T08:00:00Z"));
    let first = House::open(database.open().await, &database.data(), &wall);
    let job = first.call("bell.hold", "now", Overlap::Skip, Deliver::Nobody).await;
    first.clock.tick().await.unwrap();
    assert!(first.shutdown.finish(Duration::from_secs(30)).await);
    assert_eq!(first.run(&job).await.state, Stage::Queued);

    let second = House::open(database.open().await, &database.data(), &wall);
    second.bell.hold.add_permits(1);
    second.now().await;
    assert_eq!((second.run(&job).await.state, second.rung().len()), (Stage::Done, 1));
}

#[tokio::test]
async fn a_tool_that_would_ask_somebody_is_refused() {
    let (database, wall) = (Database::sqlite(), Wall::at("2026-11-30T08:00:00Z"));
    let house = House::open(database.open().await, &database.data(), &wall);
    let job = house.call("bell.break", "now", Overlap::Skip, Deliver::Nobody).await;
    let unknown = house.call("bell.gong", "now", Overlap::Skip, Deliver::Nobody).await;
    house.now().await;
    let run = house.run(&job).await;
    assert_eq!(run.state, Stage::Failed);
    assert!(run.error.contains("policy.allow = [\"bell.break\"]"), "{}", run.error);
    assert_eq!(house.rung().len(), 0);
    assert!(house.run(&unknown).await.error.contains("there is no tool `bell.gong`"));
}

#[tokio::test]
async fn a_paused_schedule_makes_up_for_nothing() {
    let (database, wall) = (Database::sqlite(), Wall::at("2026-11-30T08:00:00Z"));
    let house = House::open(database.open().await, &database.data(), &wall);
    let job = house.ring("every 1m").await;
    house.jobs().pause(&job, wall.now()).await.unwrap();
    house.until(at("2026-11-30T09:00:30Z")).await;
    let job = house.jobs().find(&job.id).await.unwrap();
    assert!(house.jobs().pause(&job, wall.now()).await.unwrap_err().to_string().contains("it is paused"));
    assert_eq!(house.jobs().resume(&job, wall.now()).await.unwrap(), Some(at("2026-11-30T09:01:00Z")));
    house.until(at("2026-11-30T09:01:30Z")).await;
    assert_eq!(house.rung(), [at("2026-11-30T09:01:00Z")]);
}

#[tokio::test]
async fn the_last_results_are_kept_and_old_ones_go_with_their_sessions() {
    let (database, wall) = (Database::sqlite(), Wall::at("2026-11-30T08:00:00Z"));
    let house = House::open(database.open().await, &database.data(), &wall);
    let job = house.ask("Look.", "every 1m", Deliver::Nobody).await;
    house.until(at("2026-11-30T09:00:30Z")).await;
    let runs = house.runs(&job).await;
    assert_eq!(runs.len(), 50);
    assert_eq!(runs[0].due, at("2026-11-30T08:11:00Z"), "the oldest are gone");
    assert_eq!(house.hub.sessions().list(None, 1000).await.unwrap().len(), 50);
    assert_eq!(house.hub.sessions().latest(&house.folder).await.unwrap(), None, "nobody's conversation");
    house.jobs().remove(&job).await.unwrap();
    assert_eq!(house.hub.sessions().list(None, 1000).await.unwrap().len(), 0);

    house.ring("now").await;
    house.now().await;
    wall.pass(SignedDuration::from_hours(24 * 29));
    house.now().await;
    assert_eq!(house.jobs().list(None).await.unwrap().len(), 1);
    wall.pass(SignedDuration::from_hours(48));
    house.now().await;
    assert_eq!(house.jobs().list(None).await.unwrap().len(), 0, "over for a month");
}

#[tokio::test]
async fn a_file_is_written_in_the_output_folder_and_nowhere_else() {
    let (database, wall) = (Database::sqlite(), Wall::at("2026-11-30T07:00:00Z"));
    let house = House::open(database.open().await, &database.data(), &wall);
    let file = |path: &str| Deliver::File(path.to_owned());
    house.call("bell.ring", "now", Overlap::Skip, file("reports/{date}-{time}.md")).await;
    house.now().await;
    let written = std::fs::read_to_string(house.folder.join("output/reports/2026-11-30-080000.md")).unwrap();
    assert_eq!(written, "ding\n");

    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), house.folder.join("output/link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("new"), house.folder.join("output/file")).unwrap();
    for path in ["link/x.md", "file"] {
        let job = house.call("bell.ring", "now", Overlap::Skip, file(path)).await;
        house.now().await;
        let run = house.run(&job).await;
        assert_eq!(run.delivery, Delivery::Pending, "{run:?}");
        assert!(run.refusal.contains("is a link"), "{}", run.refusal);
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    for path in ["../x", "/etc/x", "a/../../x", "", "."] {
        assert!(format!("file:{path}").parse::<Deliver>().is_err(), "{path}");
    }
}

#[tokio::test]
async fn a_webhook_is_signed_and_tried_again_so_often() {
    let (database, inbox) = (Database::sqlite(), Inbox::start());
    let wall = Wall::at("2026-11-30T08:00:00Z");
    let plan = Plan { hosts: &["127.0.0.1"], ..Plan::of(r#"{"text": "yes", "loop": true}"#) };
    let house = House::planned(database.open().await, &database.data(), &wall, &plan);
    let hook = || Deliver::Webhook(inbox.url());

    inbox.answers(&[500, 503]);
    let job = house.call("bell.ring", "now", Overlap::Skip, hook()).await;
    house.until(at("2026-11-30T09:00:00Z")).await;
    let (run, letters) = (house.run(&job).await, inbox.letters());
    assert_eq!((run.delivery, run.tries, letters.len()), (Delivery::Done, 3, 3));
    let times: Vec<_> =
        letters.iter().map(|letter| letter.headers["webhook-timestamp"].parse::<i64>().unwrap()).collect();
    let begin = at("2026-11-30T08:00:00Z").as_second();
    assert_eq!(times, [begin, begin + 10, begin + 70], "each a while after the one before");
    for letter in &letters {
        assert_eq!(letter.headers["webhook-id"], run.id, "the same each time");
        let body = letter.json();
        assert_eq!((&body["data"]["job"], &body["data"]["output"]), (&json!(job.id), &json!("ding")));
        signed_as_others_sign(&letter.headers, &letter.text);
    }

    // It is not tried for ever.
    inbox.answers(&[500; 20]);
    let job = house.call("bell.ring", "now", Overlap::Skip, hook()).await;
    house.until(at("2026-12-01T09:00:00Z")).await;
    let run = house.run(&job).await;
    assert_eq!((run.delivery, run.tries), (Delivery::Failed, 5));
    assert_eq!(inbox.letters().len(), 3 + 5);
    assert!(run.refusal.contains("500"), "{}", run.refusal);
}

#[tokio::test]
async fn a_webhook_does_not_go_where_it_is_led() {
    let (database, inbox) = (Database::sqlite(), Inbox::start());
    let wall = Wall::at("2026-11-30T08:00:00Z");
    let plan = Plan { hosts: &["127.0.0.1"], ..Plan::of("[]") };
    let house = House::planned(database.open().await, &database.data(), &wall, &plan);
    inbox.answers(&[307]);
    let job = house.call("bell.ring", "now", Overlap::Skip, Deliver::Webhook(inbox.url())).await;
    house.until(at("2026-11-30T09:00:00Z")).await;
    let run = house.run(&job).await;
    assert_eq!((run.delivery, run.tries, inbox.letters().len()), (Delivery::Failed, 1, 1));
    assert!(run.refusal.contains("give the address it leads to"), "{}", run.refusal);
}

#[tokio::test]
async fn an_address_inside_is_refused_unless_it_is_configured() {
    let (database, inbox) = (Database::sqlite(), Inbox::start());
    let wall = Wall::at("2026-11-30T08:00:00Z");
    let house = House::open(database.open().await, &database.data(), &wall);
    let port = inbox.url().rsplit(':').next().unwrap().to_owned();
    for host in ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{port}");
        let job = house.call("bell.ring", "now", Overlap::Skip, Deliver::Webhook(url)).await;
        house.now().await;
        let run = house.run(&job).await;
        assert_eq!((run.delivery, run.tries), (Delivery::Failed, 1), "{host}: {run:?}");
        assert!(run.refusal.contains("jobs.webhook_hosts"), "{host}: {}", run.refusal);
    }
    assert_eq!(inbox.letters().len(), 0);
}

#[test]
fn which_addresses_are_inside() {
    let inside = |text: &str| webhook::is_inside(text.parse().expect("an address"));
    for text in [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.168.1.1",
        "198.18.0.1",
        "203.0.113.9",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "ff02::1",
        "2001:db8::1",
        "2001::1",
    ] {
        assert!(inside(text), "{text}");
    }
    for text in [
        "1.1.1.1",
        "100.128.0.1",
        "172.32.0.1",
        "192.1.0.1",
        "2606:4700::1111",
        "::ffff:1.1.1.1",
        "64:ff9b::101:101",
    ] {
        assert!(!inside(text), "{text}");
    }
}

/// Python's own HMAC over what the specification says is signed.
fn signed_as_others_sign(headers: &std::collections::BTreeMap<String, String>, body: &str) {
    let script = "import base64, hashlib, hmac, sys\n\
        secret, id, time, body = sys.argv[1:]\n\
        key = base64.b64decode(secret.removeprefix('whsec_'))\n\
        print('v1,' + base64.b64encode(hmac.digest(key, f'{id}.{time}.{body}'.encode(), 'sha256')).decode())";
    let given = [SECRET, &headers["webhook-id"], &headers["webhook-timestamp"], body];
    let python = crate::support::mcp::python();
    let output =
        std::process::Command::new(python).arg("-c").arg(script).args(given).output().expect("Python");
    let expected = String::from_utf8(output.stdout).expect("text");
    assert_eq!(headers["webhook-signature"], expected.trim());
}

// The program, as people have it.

/// The id at the beginning of a line.
fn id(line: &str) -> String {
    line.split_whitespace().next().expect("an id").to_owned()
}

#[test]
fn jobs_from_the_command_line() {
    let world = World::new();
    let job = |arguments: &[&str]| world.omni([&["job"], arguments].concat()).run();
    assert!(job(&["list"]).succeeded().err.contains("this folder has no job"));
    let added =
        job(&["add", "every day at 8:00", "what", "is", "new?", "--zone", "Europe/Berlin"]).succeeded();
    assert!(added.err.contains("start `omni serve` in this folder"), "{added}");
    assert!(
        added.out.contains("0 8 * * * in Europe/Berlin") && added.out.contains("what is new?"),
        "{added}"
    );
    let daily = id(&added.out);
    assert!(job(&["list"]).succeeded().out.starts_with(&daily));
    let shown = job(&["show", &daily[..4]]).succeeded().out;
    assert!(shown.contains("task: what is new?") && shown.contains("tells: nobody"), "{shown}");
    job(&["pause", &daily]).succeeded();
    assert!(job(&["list"]).succeeded().out.contains("paused"));
    assert!(job(&["pause", &daily]).exited(2).err.contains("it is paused"));
    assert!(job(&["resume", &daily]).succeeded().out.contains("next "));

    let added =
        world.omni(["schedule", "add", "at 2099-01-01 00:00", "--tool", "time.now"]).run().succeeded();
    let once = id(&added.out);
    let ran = job(&["run", &once]).succeeded();
    assert!(ran.out.contains("20"), "what time it is: {ran}");
    let shown = job(&["show", "--json", &once]).succeeded().last();
    assert_eq!(shown["runs"][0]["state"], "done", "{shown}");
    assert_eq!(shown["runs"][0]["tokens"], 0, "{shown}");
    job(&["cancel", &once]).succeeded();
    assert_eq!(job(&["list", "--json"]).succeeded().last()["state"], "over");
    job(&["remove", &once]).succeeded();
    assert!(job(&["show", &once]).exited(2).err.contains("there is no job"));

    for (arguments, told) in [
        (vec!["add", "soon", "hi"], "is no time to do something"),
        (vec!["add", "every 1h", "hi", "--zone", "Mars/Olympus"], "there is no time zone"),
        (vec!["add", "every 1h", "--tool", "time.noww"], "there is no tool `time.noww`"),
        (vec!["add", "every 1h", "hi", "--deliver", "file:../x"], "is no file of the output folder"),
        (vec!["add", "every 1h", "hi", "--deliver", "ftp://x"], "is nobody to tell"),
    ] {
        let output = job(&arguments).exited(2);
        assert!(output.err.contains(told), "{output}");
    }
    let output = job(&["add", "every 1h", "hi", "--deliver", "https://example.com/hook"]).exited(3);
    assert!(output.err.contains("jobs.webhook_secret"), "{output}");
}

#[test]
fn a_server_that_is_killed_leaves_its_run_to_the_next_and_two_share_the_work() {
    let world = World::new();
    let late = world.script("late", &[json!({"text": "too late", "delay_ms": 600_000})]);
    let quick = world.script(
        "quick",
        &[json!({"text": "here it is", "expect": {"contains": "stopped while you worked"}})],
    );
    let serve = |model: &str| {
        let mut server = world.omni(["serve", "--bind", "127.0.0.1:0"]).model(model).start();
        server.until("http://");
        server
    };
    let mut first = serve(&late);
    let added = world.omni(["job", "add", "now", "look for the heron"]).run().succeeded();
    assert!(!added.err.contains("nothing runs these jobs"), "{added}");
    let job = id(&added.out);
    let run = || world.omni(["job", "show", "--json", &job]).run().succeeded().last()["runs"][0].clone();
    until(|| (run()["state"] == "running").then_some(()));
    first.kill();
    let listed = world.omni(["job", "add", "every 1h", "--tool", "time.now"]).run().succeeded();
    assert!(listed.err.contains("nothing runs these jobs now"), "{listed}");

    let (_second, _third) = (serve(&quick), serve(&quick));
    let done = until(|| Some(run()).filter(|run| run["state"] == "done"));
    assert_eq!((&done["output"], &done["attempt"]), (&json!("here it is"), &json!(2)), "{done}");

    // Two servers, every second, each time once.
    let added = world.omni(["job", "add", "* * * * * *", "--tool", "time.now"]).run().succeeded();
    let job = id(&added.out);
    let shown = until(|| {
        let shown = world.omni(["job", "show", "--json", "--limit", "50", &job]).run().succeeded().last();
        Some(shown).filter(|shown| shown["runs"].as_array().is_some_and(|runs| runs.len() >= 5))
    });
    let due: Vec<_> =
        shown["runs"].as_array().unwrap().iter().map(|run| run["due"].as_str().unwrap()).collect();
    let distinct: std::collections::BTreeSet<_> = due.iter().collect();
    assert_eq!(distinct.len(), due.len(), "{due:?}");
    assert!(due.iter().all(|due| !due.contains('.')), "whole seconds: {due:?}");
}

#[test]
fn a_chat_does_something_in_the_background_and_is_told() {
    let world = World::new();
    let steps = [json!({"text": "I found two herons.", "expect": {"contains": "count the herons"}})];
    let model = world.script("model", &steps);
    let mut chat = world.omni(["chat"]).model(&model).talking().start();
    chat.say("/bg count the herons");
    let mut told = false;
    for _ in 0..200 {
        std::thread::sleep(Duration::from_millis(50));
        let list = world.omni(["job", "list", "--json"]).run().succeeded();
        if list.json().first().is_some_and(|job| job["state"] == "over") && !told {
            let job = list.json()[0]["id"].as_str().unwrap().to_owned();
            let shown = world.omni(["job", "show", "--json", &job]).run().succeeded().last();
            told = shown["runs"][0]["delivery"] == "done";
            if told {
                break;
            }
        }
    }
    assert!(told, "it is done and told");
    chat.say("/jobs");
    chat.say("/job nonsense");
    chat.say("/quit");
    let output = chat.end().exited(0);
    assert!(output.out.contains("I found two herons."), "{output}");
    assert!(output.err.contains("count the herons") && output.err.contains("done"), "{output}");
    assert!(output.err.contains("there is no job `nonsense`"), "{output}");
    // It is a part of the conversation.
    let session = world.omni(["session", "list", "--json", "--all"]).run().succeeded();
    let chat = session
        .json()
        .into_iter()
        .find(|session| !session["id"].as_str().unwrap().starts_with("job:"))
        .unwrap();
    let shown = world.omni(["session", "show", chat["id"].as_str().unwrap()]).run().succeeded();
    assert!(shown.out.contains("I found two herons."), "{shown}");
}

#[test]
fn jobs_over_http() {
    let world = World::new();
    let model = world.script("model", &[json!({"text": "done"})]);
    let door = Door::open(world.omni(["serve", "--bind", "127.0.0.1:0"]).model(&model));
    let added = door.post("/api/v1/jobs", &json!({"when": "every 1h", "ask": "hi", "zone": "UTC"}));
    assert_eq!(added.status, 201, "{added:?}");
    let id = added.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(added.header("location").unwrap(), format!("/api/v1/jobs/{id}"));
    assert_eq!(door.get("/api/v1/jobs").json()["jobs"][0]["id"], id);
    assert_eq!(door.post(&format!("/api/v1/jobs/{id}/run"), &json!({})).status, 202);
    let run = until(|| {
        let shown = door.get(&format!("/api/v1/jobs/{id}")).json();
        Some(shown["runs"][0].clone()).filter(|run| run["state"] == "done")
    });
    assert_eq!(run["output"], "done", "{run}");
    assert_eq!(door.post(&format!("/api/v1/jobs/{id}/pause"), &json!({})).json()["state"], "paused");
    assert_eq!(door.post(&format!("/api/v1/jobs/{id}/pause"), &json!({})).status, 409);
    for (body, param) in [
        (json!({"when": "soon", "ask": "hi"}), "is no time"),
        (json!({"when": "now"}), "either `ask` or `tool`"),
        (json!({"when": "now", "ask": "hi", "deliver": "x"}), "is nobody to tell"),
        (json!({"when": "now", "ask": ""}), "there is nothing to do"),
        (json!({"when": "now", "ask": "hi", "color": "red"}), "unknown field"),
    ] {
        let answer = door.post("/api/v1/jobs", &body);
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.body.contains(param), "{answer:?}");
    }
    assert_eq!(door.post("/api/v1/jobs", &json!({"when": "now", "tool": "no.tool"})).status, 404);
    assert_eq!(door.send("DELETE", &format!("/api/v1/jobs/{id}"), &[], "").status, 204);
    assert_eq!(door.get(&format!("/api/v1/jobs/{id}")).status, 404);
}

#[test]
fn the_assistant_plans_only_what_somebody_agrees_to() {
    let world = World::new();
    let arguments = json!({"when": "every day at 8:00", "ask": "water the plants", "zone": "UTC"});
    let steps =
        [json!({"calls": [{"name": "schedule__add", "arguments": arguments}]}), json!({"text": "planned"})];
    let model = world.script("model", &steps);
    // Where jobs are run, a model can plan them; what it plans, somebody has to agree to.
    let asked = |flags: &[&str]| {
        let door =
            Door::open(world.omni([flags, &["serve", "--bind", "127.0.0.1:0"]].concat()).model(&model));
        let message = json!({"session_id": "plants", "message": "remind me"});
        assert_eq!(door.post("/message", &message).json()["output"], "planned");
        let session = door.get("/api/v1/sessions").json()["sessions"][0]["id"].as_str().unwrap().to_owned();
        door.get(&format!("/api/v1/sessions/{session}/messages")).body
    };
    let said = asked(&[]);
    assert!(said.contains("refused: it wants to be confirmed"), "{said}");
    assert!(world.omni(["job", "list"]).run().succeeded().err.contains("no job"));
    let said = asked(&["--yes"]);
    assert!(said.contains("0 8 * * * in UTC"), "{said}");
    // Elsewhere it has no word of them.
    let listed = world.omni(["ask", "--json", "hello"]).model(&model).run();
    assert!(listed.out.contains("there is no tool `schedule__add`"), "{listed}");
    let job = world.omni(["job", "list", "--json"]).run().succeeded().last();
    let session = job["session"].as_str().unwrap();
    assert_eq!(
        (&job["task"]["ask"], &job["deliver"]["chat"]),
        (&json!("water the plants"), &json!(session)),
        "{job}"
    );
    let call = |tool: &str, arguments: serde_json::Value| {
        world.omni(["tool", "call", tool, &arguments.to_string()]).run()
    };
    let id = job["id"].as_str().unwrap();
    assert!(call("schedule.list", json!({})).succeeded().out.contains("water the plants"));
    assert!(call("schedule.change", json!({"id": id, "to": "pause"})).succeeded().out.contains("paused"));
    call("schedule.remove", json!({"id": id})).exited(5);
    world
        .omni(["--yes", "tool", "call", "schedule.remove", &json!({"id": id}).to_string()])
        .run()
        .succeeded();
    assert!(call("schedule.list", json!({})).succeeded().out.contains("There is no job."));
    // Where nothing runs them, that is said.
    let planned =
        world.omni(["--yes", "tool", "call", "schedule.add", &arguments.to_string()]).run().succeeded();
    assert!(planned.out.contains("Tell the user"), "{planned}");
    let wrong =
        world.omni(["--yes", "tool", "call", "schedule.add", r#"{"when": "soon", "ask": "x"}"#]).run();
    assert!(wrong.exited(2).err.contains("every monday at 9:30"));
}

#[test]
fn the_doctor_says_whether_anybody_runs_the_jobs() {
    let world = World::new();
    let jobs = || {
        let told = world.omni(["doctor", "--json"]).run();
        told.json().into_iter().find(|finding| finding["subject"] == "jobs").expect("a finding")
    };
    assert_eq!(jobs()["ok"], true);
    world.omni(["job", "add", "every 1h", "--tool", "time.now"]).run().succeeded();
    let told = jobs();
    assert_eq!(told["ok"], false, "{told}");
    assert!(told["mend"].as_str().unwrap().contains("omni serve"), "{told}");
    let mut server = world.omni(["serve", "--bind", "127.0.0.1:0"]).start();
    server.until("http://");
    until(|| (jobs()["ok"] == true).then_some(()));
    server.signal(libc::SIGTERM);
    server.end().succeeded();
    assert_eq!(jobs()["ok"], false, "it says good-bye");
}
