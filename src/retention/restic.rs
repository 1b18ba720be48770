//! What restic makes of its own examples, as tables: the same policies must keep the same snapshots here.
//!
//! The facts are from restic's tests of its policies (`policy_keep_snapshots_*`) and from its page on removing snapshots.

use jiff::tz::TimeZone;

use super::{Candidate, Every, Group, Policy, Verdict};
use crate::clock::Timestamp;
use crate::id::{SnapshotId, WriterId};

/// The snapshots that restic's tests use, newest first: days of a month at 10:20:30, `+` for a tenth of a second more,
/// then tags; or whole times.
const SNAPSHOTS: &[(&str, &str, &str)] = &[
    ("2016-01-18 12:02:03", "", ""),
    ("2016-01-12 21:08:03", "", ""),
    ("2016-01-12 21:02:03", "", ""),
    ("2016-01-09 21:02:03", "", ""),
    ("2016-01-08 20:02:03", "", ""),
    ("2016-01-07 10:02:03", "", ""),
    ("2016-01-06 08:02:03", "", ""),
    ("2016-01-05 09:02:03", "", ""),
    ("2016-01-04 16:23:03", "", ""),
    ("2016-01-04 12:30:03", "", ""),
    ("2016-01-04 12:28:03", "", ""),
    ("2016-01-04 12:24:03", "", ""),
    ("2016-01-04 12:23:03", "", ""),
    ("2016-01-04 11:23:03", "", ""),
    ("2016-01-04 10:23:03", "", ""),
    ("2016-01-03 07:02:03", "", ""),
    ("2016-01-01 07:08:03", "", ""),
    ("2016-01-01 01:03:03", "", ""),
    ("2016-01-01 01:02:03", "", ""),
    ("2015-11", "22 21 20 18 15 13+ 13 12 10 08", ""),
    ("2015-10", "22 22", ""),
    ("2015-10", "22 22 22", "foo bar"),
    ("2015-10", "20 11 10 09 08 06 05 02 01", ""),
    ("2015-09", "22 20 11 10 09 08 06 05 02 01", ""),
    ("2015-08", "22 21 20 18 15 13+ 13 12 10 08", ""),
    ("2014-11", "22 21 20 18", ""),
    ("2014-11", "15", "foo bar"),
    ("2014-11", "13+", "bar"),
    ("2014-11", "13 12 10 08", "foo"),
    ("2014-10", "22 20 11 10 09 08 06 05 02 01", "foo"),
    ("2014-09", "22 20 11 10 09 08 06 05 02 01", ""),
    ("2014-08", "22 21 20 18 15 13+ 13 12 10 08", ""),
];

/// Policy; the places of what it keeps, newest first from 0; how many reasons there are in all.
const KEPT: &[(&str, &str, usize)] = &[
    ("last 10", "0-9", 10),
    ("last 15", "0-14", 15),
    ("last 99", "0-98", 99),
    ("last 200", "0-102", 103),
    ("hourly 20", "0-1 3-9 13-17 19-24", 20),
    ("daily 3", "0-1 3", 3),
    ("daily 10", "0-1 3-8 15-16", 10),
    ("daily 30", "0-1 3-8 15-16 19-24 26-29 34-43", 30),
    ("last 5 daily 5", "0-5", 10),
    ("last 2 daily 10", "0-1 3-8 15-16", 12),
    ("weekly 2", "0-1", 2),
    ("weekly 4", "0-1 3 15", 4),
    ("daily 3 weekly 4", "0-1 3 15", 7),
    ("monthly 6", "0 19 29 43 53 63", 6),
    ("daily 2 weekly 2 monthly 6", "0-1 19 29 43 53 63", 10),
    ("yearly 10", "0 19 63 102", 4),
    ("daily 7 weekly 2 monthly 3 yearly 10", "0-1 3-7 19 29 63 102", 16),
    ("tag foo", "31-33 67 69-82", 18),
    ("tag foo,bar", "31-33 67", 4),
    ("tag foo tag bar", "31-33 67-82", 23),
    ("last 1d", "0", 1),
    ("last 2d", "0", 1),
    ("last 7d", "0-2", 3),
    ("last 1m", "0-18", 19),
    ("last 1m14d", "0-18", 19),
    ("last 1y1d1m", "0-62", 63),
    ("last 13d23h", "0-8", 9),
    ("last 2m2h", "0-22", 23),
    ("last 1y2m3d3h", "0-67", 68),
    ("hourly 1y2m3d3h", "0-1 3-9 13-17 19-24 26-29 34-58 60-67", 57),
    ("daily 1y2m3d3h", "0-1 3-8 15-16 19-24 26-29 34-58 60-67", 53),
    ("weekly 1y2m3d3h", "0-1 3 15 19 23 28-29 35 41 43-45 49 53 57 62-63 67", 19),
    ("monthly 1y2m3d3h", "0 19 29 43 53 63", 6),
    ("yearly 1y2m3d3h", "0 19 63", 3),
    ("last 1h hourly 1d daily 7d weekly 1m monthly 1y yearly 9999y", "0-1 3 15 19 29 43 53 63 102", 17),
    ("last unlimited", "0-102", 103),
    ("last unlimited hourly unlimited", "0-102", 193),
    ("hourly unlimited", "0-1 3-9 13-17 19-24 26-29 34-58 60-68 70-98 100-102", 90),
    ("daily 3 weekly 2 monthly unlimited yearly unlimited", "0-1 3 19 29 43 53 63 73 83 93 102", 19),
];

fn candidate(place: usize, time: &str, tags: &str) -> Candidate {
    let time: jiff::Timestamp = format!("{time}Z").parse().unwrap();
    let time = Timestamp(i64::try_from(time.as_nanosecond()).unwrap());
    let mut id = [0; 32];
    // Of equally old snapshots the one with the larger id comes first.
    id[0] = 255 - u8::try_from(place).unwrap();
    Candidate {
        id: SnapshotId::new(id),
        place: (WriterId::new([1; 16]), 0),
        group: Group { host: b"mopped".to_vec(), job: b"/home/user".to_vec() },
        stored: time,
        claimed: time,
        brought: None,
        tags: tags.split_whitespace().map(str::to_owned).collect(),
        confirmed: true,
        held: false,
    }
}

fn snapshots() -> Vec<Candidate> {
    let mut found = Vec::new();
    for (month, days, tags) in SNAPSHOTS {
        let times = match *days {
            "" => vec![(*month).to_owned()],
            _ => days
                .split(' ')
                .map(|day| match day.strip_suffix('+') {
                    Some(day) => format!("{month}-{day} 10:20:30.1"),
                    None => format!("{month}-{day} 10:20:30"),
                })
                .collect(),
        };
        for time in times {
            found.push(candidate(found.len(), &time, tags));
        }
    }
    found
}

/// `last 5 daily 7 tag foo,bar`: what to keep and how much, in turns.
fn policy(text: &str) -> Policy {
    let words: Vec<_> = text.split(' ').collect();
    words.chunks(2).fold(Policy::new(), |policy, pair| {
        let every = match pair[0] {
            "tag" => return policy.keep_tags(pair[1].parse().unwrap()),
            "last" => Every::Snapshot,
            "hourly" => Every::Hour,
            "daily" => Every::Day,
            "weekly" => Every::Week,
            "monthly" => Every::Month,
            "yearly" => Every::Year,
            other => panic!("{other}"),
        };
        policy.keep(every, pair[1].parse().unwrap())
    })
}

fn verdicts(policy: &Policy, candidates: &[Candidate]) -> Vec<Verdict> {
    let now = Timestamp(1_790_000_000_000_000_000);
    policy.judge(candidates, now, &TimeZone::UTC).into_values().flatten().collect()
}

/// `0-3 7`: the places of what is kept.
fn places(verdicts: &[Verdict]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for place in (0..verdicts.len()).filter(|place| verdicts[*place].is_kept()) {
        match runs.last_mut() {
            Some((_, end)) if *end + 1 == place => *end = place,
            _ => runs.push((place, place)),
        }
    }
    let text =
        |(from, to): &(usize, usize)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    runs.iter().map(text).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_policies_of_restics_tests_keep_what_they_keep_there() {
    let snapshots = snapshots();
    assert_eq!(snapshots.len(), 103);
    for (text, kept, reasons) in KEPT {
        let verdicts = verdicts(&policy(text), &snapshots);
        assert_eq!(places(&verdicts), *kept, "{text}");
        assert_eq!(verdicts.iter().map(|verdict| verdict.reasons.len()).sum::<usize>(), *reasons, "{text}");
        assert!(verdicts.iter().zip(&snapshots).all(|(verdict, snapshot)| verdict.id == snapshot.id));
    }
}

#[test]
fn the_oldest_is_kept_where_restic_says_so() {
    let last = |text: &str| {
        let reasons = verdicts(&policy(text), &snapshots()).pop().unwrap().reasons;
        reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(last("yearly 10"), "oldest yearly 2014");
    assert_eq!(last("yearly 3"), "");
    assert_eq!(
        last("daily 3 weekly 2 monthly unlimited yearly unlimited"),
        "oldest monthly 2014-08, oldest yearly 2014"
    );
    assert_eq!(last("last 1h yearly 9999y"), "oldest yearly within 9999y 2014");
}

#[test]
fn the_example_of_restics_manual_ends_as_it_does_there() {
    let times = [
        "05-02 23", "05-02 11", "05-01 11", "04-29 11", "04-28 11", "04-25 23", "04-25 11", "04-24 11",
        "04-23 11", "04-22 11", "04-21 11",
    ];
    let snapshots: Vec<_> =
        (0..).zip(times).map(|(place, time)| candidate(place, &format!("2025-{time}:00:00"), "")).collect();
    assert_eq!(places(&verdicts(&policy("daily 5"), &snapshots)), "0 2-5");
    assert_eq!(places(&verdicts(&policy("daily 7d"), &snapshots)), "0 2-4");
}
