//! The database: opening, migrating, leases, and what happens when it cannot do its work.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use omni::store::lease::{self, Acquired, Owner};
use omni::store::{Error, Statement, Store};

use crate::support::database::{Database, on_both};
use crate::support::kill;

const TTL: Duration = Duration::from_secs(30);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time of this century")
}

async fn acquire(store: &Store, owner: &Owner, second: i64) -> Acquired {
    lease::acquire(store, "session:a", owner, TTL, at(second)).await.expect("the database works")
}

fn leased(name: &str) -> Statement {
    sqlx::query("INSERT INTO lease (name, owner, expires) VALUES ($1, $2, $3)")
        .bind(name)
        .bind("o")
        .bind(1_i64)
}

async fn leases(store: &Store) -> Vec<String> {
    let names = sqlx::query_scalar("SELECT name FROM lease ORDER BY name").fetch_all(store.pool());
    names.await.unwrap()
}

on_both! {
    async fn what_was_written_is_there_when_opened_again(database: Database) {
        let store = database.open().await;
        let owner = Owner::new();
        acquire(&store, &owner, 0).await;
        store.close().await;

        let held = acquire(&database.open().await, &Owner::new(), 1).await;
        assert_eq!(held, Acquired::Held { owner: owner.as_str().to_owned(), expires: at(30) });
    }

    async fn statements_go_together(database: Database) {
        let store = database.open().await;
        let moved = sqlx::query("UPDATE lease SET expires = $2 WHERE expires = $1").bind(1_i64).bind(2_i64);
        assert_eq!(store.all(vec![leased("a"), leased("b"), moved]).await.unwrap(), [1, 1, 2]);

        // All or none, and whoever comes next finds nothing of it in the way.
        let undone = store.all(vec![leased("c"), leased("a"), leased("d")]).await.unwrap_err();
        assert_eq!(undone.place, 1);
        assert!(undone.error.as_database_error().is_some_and(|error| error.is_unique_violation()), "{undone:?}");
        assert_eq!(leases(&store).await, ["a", "b"]);
        assert_eq!(store.all(vec![leased("c")]).await.unwrap(), [1]);

        let named = |name: &'static str| sqlx::query("SELECT expires FROM lease WHERE name = $1").bind(name);
        let found = store.rows(vec![named("a"), named("nobody"), sqlx::query("SELECT name FROM lease")]).await;
        let count: Vec<_> = found.unwrap().iter().map(Vec::len).collect();
        assert_eq!(count, [1, 0, 3]);
    }

    async fn several_processes_open_a_new_database_at_once(database: Database) {
        let opening = (0..6).map(|_| database.open());
        let stores = futures::future::join_all(opening).await;
        for store in &stores {
            let owner = Owner::new();
            let name = owner.as_str();
            let mine = lease::acquire(store, name, &owner, TTL, at(0)).await.expect("the tables are there");
            assert!(matches!(mine, Acquired::Mine(_)));
        }
    }

    async fn a_database_of_a_newer_program_is_refused(database: Database) {
        let store = database.open().await;
        let mut write = store.write().await.unwrap();
        sqlx::query("INSERT INTO migration (version, name, applied) VALUES (999, 'later', 0)")
            .execute(&mut *write)
            .await
            .unwrap();
        write.commit().await.unwrap();
        store.close().await;

        let error = Store::open(database.url.as_deref(), &database.data()).await.unwrap_err();
        assert!(matches!(error, Error::Newer { found: 999, .. }), "{error}");
        assert!(error.to_string().contains("update omni"), "{error}");
    }

    async fn a_transaction_that_is_dropped_never_happened(database: Database) {
        let store = database.open().await;
        let mut write = store.write().await.unwrap();
        sqlx::query("INSERT INTO lease (name, owner, expires) VALUES ('session:a', 'x', 9000000000000)")
            .execute(&mut *write)
            .await
            .unwrap();
        drop(write);
        assert!(matches!(acquire(&store, &Owner::new(), 0).await, Acquired::Mine(_)));
    }

    async fn one_of_two_processes_gets_a_lease(database: Database) {
        let (first, second) = (database.open().await, database.open().await);
        let (ann, bob) = (Owner::new(), Owner::new());
        let (of_ann, of_bob) = tokio::join!(acquire(&first, &ann, 0), acquire(&second, &bob, 0));
        let mine = [of_ann, of_bob].into_iter().filter(|got| matches!(got, Acquired::Mine(_))).count();
        assert_eq!(mine, 1);
    }

    async fn the_lease_of_a_dead_owner_expires(database: Database) {
        let (first, second) = (database.open().await, database.open().await);
        let (dead, heir) = (Owner::new(), Owner::new());
        let Acquired::Mine(old) = acquire(&first, &dead, 0).await else { panic!("it was free") };
        assert!(matches!(acquire(&second, &heir, 29).await, Acquired::Held { .. }));
        let Acquired::Mine(new) = acquire(&second, &heir, 30).await else { panic!("it had expired") };

        // Were the owner only asleep, it must learn that it lost, and must not free it.
        assert_eq!(lease::renew(&first, &old, TTL, at(31)).await.unwrap(), None);
        lease::release(&first, &old).await.unwrap();
        assert!(lease::renew(&second, &new, TTL, at(32)).await.unwrap().is_some());
    }

    async fn the_lease_of_a_process_that_ended_is_free_at_once(database: Database) {
        let store = database.open().await;
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let owner = Owner::of(child.id());
        assert!(matches!(acquire(&store, &owner, 0).await, Acquired::Mine(_)));
        let held = acquire(&store, &Owner::new(), 1).await;
        assert_eq!(held, Acquired::Held { owner: owner.as_str().to_owned(), expires: at(30) });

        child.kill().unwrap();
        child.wait().unwrap();
        let (ann, bob) = (Owner::new(), Owner::new());
        let (of_ann, of_bob) = tokio::join!(acquire(&store, &ann, 2), acquire(&store, &bob, 2));
        let mine = [of_ann, of_bob].into_iter().filter(|got| matches!(got, Acquired::Mine(_))).count();
        assert_eq!(mine, 1, "one heir");
    }

    async fn a_renewed_lease_lasts_longer(database: Database) {
        let store = database.open().await;
        let owner = Owner::new();
        let Acquired::Mine(mine) = acquire(&store, &owner, 0).await else { panic!("it was free") };
        let renewed = lease::renew(&store, &mine, TTL, at(20)).await.unwrap().expect("nobody took it");
        assert_eq!(renewed.expires, at(50));
        assert!(matches!(acquire(&store, &Owner::new(), 49).await, Acquired::Held { .. }));
        assert!(matches!(acquire(&store, &owner, 49).await, Acquired::Mine(_)), "the owner may ask again");
    }

    async fn a_released_lease_is_free(database: Database) {
        let store = database.open().await;
        let Acquired::Mine(mine) = acquire(&store, &Owner::new(), 0).await else { panic!("it was free") };
        lease::release(&store, &mine).await.unwrap();
        assert!(matches!(acquire(&store, &Owner::new(), 1).await, Acquired::Mine(_)));
    }
}

#[test]
fn who_is_dead_and_who_may_live() {
    assert!(!Owner::new().is_dead(), "this process");
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let owner = Owner::of(child.id());
    assert!(!owner.is_dead());
    let parts: Vec<&str> = owner.as_str().split('.').collect();
    let with = |place: usize, other: &str| {
        let mut parts = parts.clone();
        parts[place] = other;
        Owner::named(&parts.join("."))
    };
    assert!(with(1, "1").is_dead(), "the process of this id is a younger one");

    child.kill().unwrap();
    // Killed, but its parent has not asked yet how it ended.
    kill::until(|| owner.is_dead().then_some(()));
    child.wait().unwrap();
    assert!(owner.is_dead(), "gone");
    assert!(!with(2, "0123456789abcdef0123456789abcdef-4026531836").is_dead(), "another machine");
    let machine = parts[2].split('-').next().unwrap();
    assert!(!with(2, &format!("{machine}-1")).is_dead(), "another container");
    assert!(!with(0, "0").is_dead() && !with(0, "-1").is_dead(), "no process");
    for name in ["", "4711-0199", "...", "1.?.?.x", "4711.x.y"] {
        assert!(!Owner::named(name).is_dead(), "{name:?} tells too little");
    }
}

#[tokio::test]
async fn a_new_file_is_for_its_owner_alone() {
    let database = Database::sqlite();
    database.open().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&database.data()), mode(&database.file())), (0o700, 0o600));
}

#[tokio::test]
async fn a_path_with_signs_of_urls_is_taken_literally() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("50% of #1? ü.db");
    let url = format!("sqlite:{}", file.display());
    Store::open(Some(&url), folder.path()).await.unwrap();
    assert!(file.metadata().unwrap().len() > 0);
}

#[tokio::test]
async fn a_data_folder_that_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::write(&data, "not a folder").unwrap();
    let error = Store::open(None, &data).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains(&data.display().to_string()), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database() {
    let database = Database::sqlite();
    std::fs::create_dir_all(database.data()).unwrap();
    std::fs::write(database.file(), "Dear diary, ".repeat(1000)).unwrap();
    let error = Store::open(None, &database.data()).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(std::fs::read_to_string(database.file()).unwrap().starts_with("Dear diary"));
}

#[tokio::test]
async fn an_address_that_is_none() {
    let passwords =
        ["postgres://ann:pw@[/x", "mysql://ann:?pw@@host/x", "postgres://[/x?password=pw", "ann:pw@host/db"];
    for url in ["mysql://localhost/x", "sqlite:", "sqlite::memory:", "omni.db"].into_iter().chain(passwords) {
        let error = Store::open(Some(url), Path::new("/nonexistent")).await.unwrap_err();
        assert!(matches!(error, Error::Url { .. }), "{url}: {error}");
        assert!(!error.to_string().contains("pw"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://ann:secret@127.0.0.1:{port}/omni");
    let error = Store::open(Some(&url), Path::new("/nonexistent")).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("ann:****@127.0.0.1"), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn a_server_without_the_database() {
    let url = crate::support::postgres::server().url("nowhere");
    let error = Store::open(Some(&url), Path::new("/nonexistent")).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable { hint, .. } if hint.contains("create it")), "{error}");
}

#[tokio::test]
async fn a_server_that_allows_reading_alone() {
    let database = Database::postgres();
    let store = database.open().await;
    let mut write = store.write().await.unwrap();
    sqlx::query("SET TRANSACTION READ ONLY").execute(&mut *write).await.unwrap();
    let refused = sqlx::query("DELETE FROM lease").execute(&mut *write).await.unwrap_err();
    assert!(matches!(store.explain(refused), Error::ReadOnly { .. }));
}

#[tokio::test]
async fn a_server_that_hung_up_is_called_again() {
    let database = Database::postgres();
    let store = database.open().await;
    let owner = Owner::new();
    acquire(&store, &owner, 0).await;
    let name = database.url.as_deref().and_then(|url| url.split(['/', '?']).nth(3)).unwrap();
    let hang_up = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    crate::support::postgres::server().sql(&hang_up).unwrap();
    assert!(matches!(acquire(&store, &owner, 1).await, Acquired::Mine(_)));
}

#[tokio::test]
async fn a_database_that_somebody_else_holds_is_busy() {
    let database = Database::sqlite();
    let (ours, theirs) = (database.open().await, database.open().await);
    let held = theirs.write().await.unwrap();
    ours.once(sqlx::query("PRAGMA busy_timeout = 1")).await.unwrap();
    let error = ours.write().await.unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    held.commit().await.unwrap();
    assert!(matches!(acquire(&ours, &Owner::new(), 0).await, Acquired::Mine(_)));
}

#[tokio::test]
async fn statements_that_nobody_waits_for_any_more_hold_nobody_up() {
    let database = Database::sqlite();
    let store = database.open().await;
    for round in 0..200 {
        let all = (0..20).map(|number| leased(&format!("{round}.{number}"))).collect();
        // Given up at another moment each time.
        tokio::select! {
            biased;
            _ = store.all(all) => {}
            () = async { for _ in 0..round % 40 { tokio::task::yield_now().await } } => {}
        }
    }
    store.all(vec![leased("z")]).await.unwrap();
    let names = leases(&store).await;
    for round in 0..200 {
        let there = names.iter().filter(|name| name.starts_with(&format!("{round}."))).count();
        assert!(there == 0 || there == 20, "{there} of round {round}");
    }
}
