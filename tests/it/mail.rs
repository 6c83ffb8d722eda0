//! Mail of chat networks in the database: nothing twice, nothing lost, who may talk.

use std::time::Duration;

use jiff::Timestamp;
use omni::store::mail::{Letter, Mail, Parcel, State};

use crate::support::database::{Database, on_both};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time of this century")
}

fn letter(id: i64, lane: &str) -> Letter {
    let (turn, body) = (format!("turn-{id}"), format!("says \0{id}"));
    Letter { id, lane: lane.into(), bundle: String::new(), place: String::new(), message: id, turn, body }
}

fn parcel(id: &str, chat: i64) -> Parcel {
    Parcel { id: id.into(), chat, place: String::new(), turn: "turn".into(), body: format!("{id}!") }
}

async fn ids(mail: &Mail, lane: &str) -> Vec<i64> {
    mail.waiting(lane).await.unwrap().iter().map(|letter| letter.id).collect()
}

on_both! {
    async fn a_letter_is_taken_once(database: Database) {
        let mail = Mail::new(database.open().await, "telegram:1");
        assert_eq!(mail.take(&[letter(7, "ann"), letter(8, "bob")], 9, at(0)).await.unwrap(), 2);
        assert_eq!(mail.take(&[letter(8, "bob"), letter(9, "ann")], 10, at(1)).await.unwrap(), 1);
        assert_eq!(mail.lanes().await.unwrap(), ["ann", "bob"]);
        assert_eq!(ids(&mail, "ann").await, [7, 9]);
        let cursor = mail.cursor().await.unwrap();
        assert_eq!((cursor.next, cursor.heard), (10, Some(at(1))));
        // One that is done stays known.
        mail.answer(&[8], &[], at(2)).await.unwrap();
        assert_eq!(mail.take(&[letter(8, "bob")], 10, at(3)).await.unwrap(), 0);
        assert_eq!(mail.lanes().await.unwrap(), ["ann"]);
        // Another account has mail of its own.
        let other = Mail::new(mail.store().clone(), "telegram:2");
        assert_eq!(other.take(&[letter(7, "ann")], 8, at(0)).await.unwrap(), 1);
        assert_eq!(other.cursor().await.unwrap().next, 8);
    }

    async fn letters_that_belong_together_have_one_turn(database: Database) {
        let mail = Mail::new(database.open().await, "telegram:1");
        mail.take(&[letter(1, "ann"), letter(2, "ann"), letter(3, "ann")], 4, at(0)).await.unwrap();
        let letters = mail.waiting("ann").await.unwrap();
        mail.join(&letters[..2]).await.unwrap();
        let turns: Vec<_> = mail.waiting("ann").await.unwrap().into_iter().map(|letter| letter.turn).collect();
        assert_eq!(turns, ["turn-1", "turn-1", "turn-3"]);
    }

    async fn a_parcel_is_there_once_and_in_order(database: Database) {
        let mail = Mail::new(database.open().await, "telegram:1");
        mail.take(&[letter(1, "ann")], 2, at(0)).await.unwrap();
        let parcels = [parcel("a", 5), parcel("b", 5), parcel("c", 6)];
        mail.answer(&[1], &parcels, at(0)).await.unwrap();
        mail.answer(&[1], &parcels, at(1)).await.unwrap();
        let next = mail.next(5).await.unwrap().expect("a parcel");
        assert_eq!((next.parcel.id.as_str(), next.state), ("a", State::Waits));
        mail.set("a", State::Sending, 41).await.unwrap();
        let next = mail.next(5).await.unwrap().expect("the same");
        assert_eq!((next.parcel.id.as_str(), next.state, next.after), ("a", State::Sending, 41));
        mail.set("a", State::Sent, 42).await.unwrap();
        assert_eq!(mail.next(5).await.unwrap().expect("another").parcel.id, "b");
        assert_eq!(mail.sent(5, 42).await.unwrap().expect("a message").parcel.turn, "turn");
        assert_eq!(mail.newest().await.unwrap()[""], 42);
        mail.set("b", State::Failed, 0).await.unwrap();
        assert_eq!(mail.chats().await.unwrap(), [6]);
        mail.moved(6, -100, "-100").await.unwrap();
        assert_eq!(mail.next(-100).await.unwrap().expect("it moved").parcel.place, "-100");
    }

    async fn a_code_lets_in_one_and_ends(database: Database) {
        let mail = Mail::new(database.open().await, "telegram:1");
        let code = mail.code(true, Duration::from_secs(60), at(0)).await.unwrap();
        let late = mail.code(false, Duration::from_secs(60), at(0)).await.unwrap();
        assert_ne!(code, late);
        assert!(!mail.redeem("ABCDEFGH", 1, "Eve", at(1)).await.unwrap());
        let other = Mail::new(mail.store().clone(), "telegram:2");
        assert!(!other.redeem(&code, 1, "Eve", at(1)).await.unwrap(), "it is for another bot");
        assert!(mail.redeem(&code, 1, "Ann", at(1)).await.unwrap());
        assert!(!mail.redeem(&code, 2, "Eve", at(1)).await.unwrap(), "it was good once");
        assert!(!mail.redeem(&late, 2, "Eve", at(61)).await.unwrap(), "it is too late");
        let contacts = mail.contacts().await.unwrap();
        assert_eq!(contacts.iter().map(|one| (one.id, one.admin)).collect::<Vec<_>>(), [(1, true)]);
        assert!(mail.forbid(1).await.unwrap() && !mail.forbid(1).await.unwrap());
    }

    async fn what_was_done_long_ago_is_forgotten(database: Database) {
        let mail = Mail::new(database.open().await, "telegram:1");
        mail.take(&[letter(1, "ann"), letter(2, "ann")], 3, at(0)).await.unwrap();
        mail.answer(&[1], &[parcel("a", 5), parcel("b", 5)], at(0)).await.unwrap();
        mail.set("a", State::Sent, 1).await.unwrap();
        mail.prune(at(8 * 24 * 3600)).await.unwrap();
        assert_eq!(ids(&mail, "ann").await, [2], "what waits stays");
        assert!(mail.parcel("a").await.unwrap().is_none());
        assert!(mail.parcel("b").await.unwrap().is_some(), "what waits stays");
    }
}
