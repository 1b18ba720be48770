//! `status`: which job is not where it should be.

use serde_json::json;

use crate::support::{Place, noise};

#[test]
fn every_job_is_told_of_and_what_misses_an_objective_has_a_line() {
    let place = Place::empty();
    place.run(["init", "-q", "--new-key-file", "key"]).exits(0);
    let run = place.run(["status"]).exits(0);
    assert!(run.err.contains("there are no snapshots"), "{run:?}");
    assert!(place.run(["status", "--max-age", "26h"]).exits(5).out.contains("missed: there is no snapshot"));
    place.write("src/large", &noise(100_000, 3));
    place.write("src/small", b"x");
    for job in ["web", "db"] {
        place.run(["backup", "-q", "--job", job, "src"]).exits(0);
    }
    let run = place.run(["status", "--max-age", "26h", "--min-size", "90%"]).exits(0);
    assert!(run.out.contains("web") && run.out.contains("db") && !run.out.contains("missed"), "{run:?}");
    std::fs::remove_file(place.path("src/large")).unwrap();
    place.run(["backup", "-q", "--job", "db", "--allow-shrink", "src"]).exits(0);
    place.run(["hold", "add", "-q", "latest"]).exits(0);

    let run = place.run(["status", "--min-size", "90%"]).exits(5);
    let missed: Vec<&str> = run.out.lines().filter(|line| line.starts_with("missed: ")).collect();
    assert!(missed.len() == 1 && missed[0].contains(" db: ") && missed[0].contains("are usual"), "{run:?}");
    place.run(["status", "--min-size", "90%", "--job", "web"]).exits(0);
    place.run(["status", "--max-age", "0s"]).exits(5);
    let objects = place.run(["status", "--min-size", "90%", "--json"]).exits(5).objects();
    let job = |name: &str| objects.iter().find(|object| object["job"] == name).unwrap();
    assert_eq!(job("db")["missed"], json!([{ "objective": "min_size" }]));
    assert_eq!((&job("db")["snapshots"], &job("db")["held"]), (&json!(2), &json!(1)));
    assert_eq!((&job("db")["bytes"], &job("db")["usual_bytes"]), (&json!(1), &json!(100_001)));
    assert_eq!(job("web")["missed"], json!([]));
    let status = objects.last().unwrap();
    assert_eq!(
        (&status["type"], &status["missed"], &status["locked"]),
        (&json!("status"), &json!(1), &json!(false))
    );
    for bad in [["--max-age", "x"], ["--min-size", "x"]] {
        place.run(["status"].into_iter().chain(bad)).exits(2);
    }
}

#[test]
fn a_writer_is_told_of_its_own_jobs() {
    let place = Place::with_repository();
    place.backup();
    place.run(["key", "add", "-q", "--role", "writer", "--new-key-file", "writer.key"]).exits(0);
    let own = ["--key-file", "writer.key", "--state-dir", "writer-state", "--cache-dir", "writer-cache"];
    let run = |args: &[&'static str]| place.run(args.iter().copied().chain(own));
    run(&["backup", "-q", "--job", "mine", "src"]).exits(0);
    let objects = run(&["status", "--max-age", "1h", "--json"]).exits(0).objects();
    assert_eq!((objects.len(), &objects[0]["job"]), (2, &json!("mine")));
    assert_eq!(objects[1]["not_shown"], 1);
    assert!(run(&["status"]).exits(0).err.contains("1 snapshots are not shown"));
}
