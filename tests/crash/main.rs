//! A backup that dies anywhere loses nothing that was acknowledged, and the next run needs no help.
//!
//! Three ways to die: the store stops answering at each request in turn, as if the process had ended there; the process is
//! killed at random moments; and before each system call that changes a file. `LIFEBOAT_KILLS` says how often, `all` for
//! every system call; `LIFEBOAT_SEED` picks other moments.
#![allow(missing_docs, unreachable_pub, reason = "a test has no public interface")]
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failed step fails the test; it kills by the clock"
)]

mod calls;
mod kill;
mod place;
mod trace;
mod world;

use std::sync::Arc;
use std::time::Duration;

use lifeboat::ops::verify::{Depth, Problem, verify};
use lifeboat::store::fault::{Fault, FaultStore, OpKind};
use world::{World, back_up, check_snapshots, open, store_over};

/// Nothing may take longer.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs the second backup of the world with a store that stops, then everything that a user would do next.
async fn stop_and_resume(world: &World, stop: u64, after: bool) -> bool {
    let what = format!("stopped {} request {stop}", if after { "after" } else { "before" });
    let place = world.copy().await;
    let fault = if after { Fault::StopAfter } else { Fault::Stop };
    let faults =
        FaultStore::new(place.objects.clone(), move |op| if op.number == stop { fault } else { Fault::None });
    let first = match open(store_over(Arc::new(faults.clone())), &place.state, &world.key).await {
        Ok(repo) => back_up(&repo, world.source.path()).await,
        Err(error) => Err(error.into()),
    };
    let acknowledged = first.ok();
    assert!(faults.is_stopped() || acknowledged.is_some(), "{what}: failed without a cause");

    let store = store_over(place.objects.clone());
    let repo = open(store, &place.state, &world.key).await.unwrap_or_else(|e| panic!("{what}: {e}"));
    if let Some(id) = acknowledged {
        check_snapshots(&repo, &[(id, world.source.path())], &what).await;
    }
    let resumed =
        back_up(&repo, world.source.path()).await.unwrap_or_else(|e| panic!("{what}: resuming: {e}"));
    let report = verify(&repo, Depth::Data).await.unwrap();
    for finding in &report.findings {
        // A snapshot that was stored and not acknowledged may stay; it is nobody's.
        assert!(matches!(finding.problem, Problem::Unconfirmed), "{what}: {finding}");
    }
    let snapshots = [(world.first, world.before.path()), (resumed, world.source.path())];
    check_snapshots(&repo, &snapshots, &what).await;
    faults.is_stopped()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_may_stop_at_every_request_to_the_store() {
    let world = World::build().await;
    let mut requests = 0;
    for after in [false, true] {
        for stop in 0.. {
            let run = stop_and_resume(&world, stop, after);
            let stopped = tokio::time::timeout(LIMIT, run).await.unwrap_or_else(|_| panic!("{stop}: no end"));
            if !stopped {
                break;
            }
            requests += 1;
        }
    }
    println!("{requests} places to stop at");
    assert!(requests > 30, "the backup made only {requests} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_changes_nothing() {
    use lifeboat::store::fault::Failure;
    let world = World::build().await;
    for stop in 0.. {
        let place = world.copy().await;
        let faults = FaultStore::new(place.objects.clone(), move |op| match op.kind {
            OpKind::Put if op.number == stop => Fault::After(Failure::Unreachable),
            _ if op.number == stop => Fault::Before(Failure::Unreachable),
            _ => Fault::None,
        });
        let store = world::patient_store_over(Arc::new(faults.clone()));
        let repo = open(store, &place.state, &world.key).await.unwrap();
        let id = back_up(&repo, world.source.path()).await.unwrap();
        let what = format!("the answer to request {stop} was lost");
        assert!(verify(&repo, Depth::Data).await.unwrap().findings.is_empty(), "{what}");
        check_snapshots(&repo, &[(world.first, world.before.path()), (id, world.source.path())], &what).await;
        if faults.take_record().iter().all(|op| op.number < stop) || stop > 200 {
            break;
        }
    }
}
