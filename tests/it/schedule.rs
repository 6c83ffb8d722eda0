//! When something is due: words, cron patterns, and what clocks on walls do in spring and autumn.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use omni::schedule::{Error, Schedule};
use proptest::prelude::*;

const BERLIN: &str = "Europe/Berlin";

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// The first times of a schedule after `after`, as a clock on the wall of its zone shows them.
fn times(schedule: &Schedule, after: &str, count: usize, zone: &str) -> Vec<String> {
    let mut now = at(after);
    let mut times = Vec::new();
    while let (true, Some(next)) = (times.len() < count, schedule.next(now)) {
        assert!(next > now, "{schedule} goes back from {now} to {next}");
        let local = next.in_tz(zone).expect("a zone");
        times.push(local.strftime("%Y-%m-%d %H:%M:%S %z").to_string());
        now = next;
    }
    times
}

fn parse(text: &str, now: &str) -> Schedule {
    Schedule::parse(text, BERLIN, at(now)).unwrap_or_else(|error| panic!("{error}"))
}

fn cron(pattern: &str) -> Schedule {
    Schedule::Cron { pattern: pattern.to_owned(), zone: BERLIN.to_owned() }
}

#[test]
fn words_that_people_use() {
    // A Monday, 10:30 in Berlin.
    let now = "2026-11-30T09:30:00.7Z";
    let first = |text: &str| times(&parse(text, now), now, 1, BERLIN).pop().expect("a time");
    for (text, expected) in [
        ("in 20m", "2026-11-30 10:50:00 +0100"),
        ("in 1d 2h", "2026-12-01 12:30:00 +0100"),
        ("at 18:00", "2026-11-30 18:00:00 +0100"),
        ("at 9:15", "2026-12-01 09:15:00 +0100"),
        ("at 2026-12-24 18:00", "2026-12-24 18:00:00 +0100"),
        ("at 2026-12-24T18:00:00Z", "2026-12-24 19:00:00 +0100"),
        ("every 90s", "2026-11-30 10:31:30 +0100"),
        ("every 1d", "2026-12-01 10:30:00 +0100"),
        ("every day at 8:00", "2026-12-01 08:00:00 +0100"),
        ("every monday at 9:30", "2026-12-07 09:30:00 +0100"),
        ("every Mondays at 11:00", "2026-11-30 11:00:00 +0100"),
        ("every weekday at 8:00", "2026-12-01 08:00:00 +0100"),
        ("every saturday, sunday at 8:00", "2026-12-05 08:00:00 +0100"),
        ("every day", "2026-12-01 00:00:00 +0100"),
        ("0 8 * * mon-fri", "2026-12-01 08:00:00 +0100"),
        ("*/10 * * * * *", "2026-11-30 10:30:10 +0100"),
        ("@hourly", "2026-11-30 11:00:00 +0100"),
    ] {
        assert_eq!(first(text), expected, "{text}");
    }
    assert_eq!(parse("now", now), Schedule::Once { at: at("2026-11-30T09:30:00Z") });
}

#[test]
fn words_that_are_no_time_say_what_is() {
    let error = |text: &str, zone: &str| {
        Schedule::parse(text, zone, at("2026-11-30T09:30:00Z")).expect_err("it is none").to_string()
    };
    for text in
        ["", "soon", "in", "in a while", "in 0s", "in -5m", "every 0s", "every blue moon", "at 25:00", "at 8"]
    {
        assert!(error(text, BERLIN).contains("is no time to do something; write"), "{text}");
    }
    assert!(error("61 * * * *", BERLIN).starts_with("`61 * * * *` is no cron pattern: "));
    assert!(error("at 2020-01-01 08:00", BERLIN).contains("never comes"));
    assert!(error("0 0 30 2 *", BERLIN).contains("never comes"), "the 30th of February");
    assert_eq!(error("every 2h", "Berlin/Mitte"), Error::Zone("Berlin/Mitte".to_owned()).to_string());
}

#[test]
fn a_fixed_time_that_is_left_out_in_spring_comes_right_after_the_gap() {
    // On 2027-03-28 the clocks of Berlin go from 02:00 to 03:00.
    let expected = ["2027-03-27 02:30:00 +0100", "2027-03-28 03:00:00 +0200", "2027-03-29 02:30:00 +0200"];
    assert_eq!(times(&cron("30 2 * * *"), "2027-03-26T12:00:00Z", 3, BERLIN), expected);
}

#[test]
fn a_fixed_time_that_comes_twice_in_autumn_is_taken_once() {
    // On 2026-10-25 they go from 03:00 back to 02:00.
    let expected = ["2026-10-24 02:30:00 +0200", "2026-10-25 02:30:00 +0200", "2026-10-26 02:30:00 +0100"];
    assert_eq!(times(&cron("30 2 * * *"), "2026-10-23T12:00:00Z", 3, BERLIN), expected);
}

#[test]
fn steps_follow_the_clock_through_both() {
    let spring = ["2027-03-28 01:30:00 +0100", "2027-03-28 03:00:00 +0200", "2027-03-28 03:30:00 +0200"];
    assert_eq!(times(&cron("*/30 * * * *"), "2027-03-28T00:00:00Z", 3, BERLIN), spring);
    let autumn = [
        "2026-10-25 02:00:00 +0200",
        "2026-10-25 02:30:00 +0200",
        "2026-10-25 02:00:00 +0100",
        "2026-10-25 02:30:00 +0100",
        "2026-10-25 03:00:00 +0100",
    ];
    assert_eq!(times(&cron("*/30 * * * *"), "2026-10-24T23:30:00Z", 5, BERLIN), autumn);
}

#[test]
fn an_interval_does_not_care_for_clocks_on_walls() {
    let every = Schedule::Every { seconds: 3600, from: at("2026-10-24T22:00:00Z") };
    let expected = ["2026-10-25 01:00:00 +0200", "2026-10-25 02:00:00 +0200", "2026-10-25 02:00:00 +0100"];
    assert_eq!(times(&every, "2026-10-24T22:00:00Z", 3, BERLIN), expected);
    // Asked before it begins, it is due when it begins.
    assert_eq!(every.next(at("2020-01-01T00:00:00Z")), Some(at("2026-10-24T22:00:00Z")));
}

#[test]
fn a_time_that_is_given_in_a_gap_or_a_fold_is_one_moment() {
    let once = |text: &str, now: &str| match parse(text, now) {
        Schedule::Once { at } => at,
        other => panic!("{other}"),
    };
    assert_eq!(once("at 2027-03-28 02:30", "2027-03-01T00:00:00Z"), at("2027-03-28T01:30:00Z"));
    assert_eq!(once("at 2026-10-25 02:30", "2026-10-01T00:00:00Z"), at("2026-10-25T00:30:00Z"));
}

proptest! {
    /// A year of days: one time for each, whatever the zone does, in the right order.
    #[test]
    fn a_daily_time_comes_once_a_day(
        hour in 0u8..24, minute in 0u8..60, year in 2020i16..2036,
        zone in prop::sample::select(vec![
            "Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Africa/Casablanca",
            "Asia/Kolkata", "Pacific/Apia", "UTC",
        ]),
    ) {
        let schedule = Schedule::Cron { pattern: format!("{minute} {hour} * * *"), zone: zone.to_owned() };
        let tz = TimeZone::get(zone).expect("a zone");
        let start = jiff::civil::date(year, 1, 1).to_zoned(tz.clone()).expect("a day").timestamp();
        let mut now = start - SignedDuration::from_secs(1);
        let mut days = BTreeSet::new();
        loop {
            let next = schedule.next(now).expect("there is always a next day");
            prop_assert!(next > now);
            let local = next.to_zoned(tz.clone());
            if local.year() > year {
                break;
            }
            prop_assert!(days.insert(local.date()), "twice on {}", local.date());
            let is_usual = local.hour() == hour as i8 && local.minute() == minute as i8;
            let wanted = local.date().at(hour as i8, minute as i8, 0, 0);
            prop_assert!(is_usual || tz.to_ambiguous_timestamp(wanted).is_ambiguous(), "{local}");
            now = next;
        }
        let all = jiff::civil::date(year, 1, 1).days_in_year();
        prop_assert_eq!(days.len(), usize::try_from(all).expect("a few hundred"));
    }
}
