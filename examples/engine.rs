use lifeboat::*;
use std::sync::Arc;
#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let repo_path = &args[2];
    let observer = Arc::new(event::CountingObserver::default());
    let env = repo::Env {
        clock: Arc::new(clock::SystemClock::new()),
        random: Arc::new(random::SystemRandom),
        observer: observer.clone(),
        cancel: cancel::Cancel::new(),
        limits: repo::Limits::default(),
        places: repo::Places {
            state: format!("{repo_path}.state").into(),
            cache: Some(format!("{repo_path}.cache").into()),
        },
    };
    let url = store::StoreUrl::local(repo_path);
    let senv = store::StoreEnv {
        clock: env.clock.clone(),
        random: env.random.clone(),
        observer: env.observer.clone(),
        cancel: env.cancel.clone(),
    };
    let st = store::Store::open(&url, &store::StoreOptions::default(), senv).await.unwrap();
    let keyfile = format!("{repo_path}.key");
    if args[1] == "init" {
        let o = ops::init::InitOptions {
            passphrase: None,
            new_key_file: true,
            recovery_words: false,
            chunk_params: chunk::ChunkParams::FILES,
            accept_weak_store: false,
        };
        let i = ops::init::init(st, &env, o).await.unwrap();
        std::fs::write(&keyfile, i.key_file.unwrap().as_bytes()).unwrap();
        return;
    }
    let (_, key) = crypto::keyfile::decode(&std::fs::read_to_string(&keyfile).unwrap()).unwrap();
    let r = repo::Repository::open(st, env.clone(), &crypto::slot::Unlock::KeyFile(key)).await.unwrap();
    let o = ops::backup::BackupOptions {
        source: ops::backup::BackupSource::Paths(vec![args[3].clone().into()]),
        stored_as: None,
        job: None,
        host: vec![],
        user: vec![],
        tags: vec![],
        filter: Arc::new(filter::FilterBuilder::new().build().unwrap()),
        one_file_system: false,
        exclude_caches: false,
        exclude_larger_than: None,
        level: 1,
        allow_shrink: false,
        dry_run: args[1] == "dry",
    };
    match ops::backup::backup(&r, o).await {
        Ok(s) => println!("{s:?}"),
        Err(e) => {
            println!("ERR {e:?}");
            std::process::exit(1)
        }
    }
}
