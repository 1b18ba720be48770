//! `postgres backup`: a base backup of a running server. `postgres check`: whether it archives as it should.

use std::path::Path;

use lifeboat::class::Class;
use lifeboat::database::connection::ConnectOptions;
use lifeboat::database::{PgError, passfile};
use lifeboat::error::Error;
use lifeboat::ops::base::{self, BaseBackupOptions, CheckOptions, base_backup};
use lifeboat::repo::Task;
use zeroize::Zeroizing;

use super::super::args::{BaseBackupArgs, ConnectArgs, ServerCheckArgs};
use super::super::environment::Surroundings;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::paths;
use super::super::render::{base as render, sanitize};
use super::super::session::Session;
use super::backup::{host, user};
use super::default;

/// Where sockets of PostgreSQL are: where Debian puts them, and where PostgreSQL does by itself.
const SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

pub(super) async fn backup(session: &mut Session, args: BaseBackupArgs) -> Result<Exit, CliError> {
    let connect = connect(args.connect, &session.around)?;
    default::ensure(session).await?;
    let repository = session.repository(Task::Backup).await?;
    let options = BaseBackupOptions {
        cluster: args.cluster,
        connect,
        fast: !args.spread_checkpoint,
        wait: args.wait_archive,
        host: args.new.host.map_or_else(host, String::into_bytes),
        user: user(),
        tags: args.new.tag,
        level: args.new.level,
    };
    let done = base_backup(&repository, &options).await?;
    session.clear();
    let voice = session.voice();
    if voice.json {
        session.output.json(&render::backup_json(&done, &options.cluster))?;
    } else {
        for page in &done.wrong {
            let file = sanitize::path(&page.file);
            session.say_always(&format!("error: {file}: the checksum of page {} is wrong", page.page));
        }
        if !done.lacking.is_empty() {
            session.say_always(&render::waiting(&done.lacking));
        }
        if !voice.quiet {
            session.output.text(&render::backup_text(&done, &options.cluster))?;
        }
    }
    let partial = done.backup.failed > 0 || done.postgres.wrong_pages > 0 || !done.postgres.complete;
    Ok(if partial { Exit::Class(Class::Partial) } else { Exit::Done })
}

pub(super) async fn check(session: &mut Session, args: ServerCheckArgs) -> Result<Exit, CliError> {
    let connect = connect(args.connect, &session.around)?;
    let repository = session.repository(Task::CheckServer).await?;
    let options = CheckOptions {
        cluster: args.cluster,
        connect,
        archive_test: args.archive_test,
        max_lag: args.max_lag,
        max_age: args.max_age,
    };
    let report = base::check(&repository, &options).await?;
    session.clear();
    if session.voice().json {
        session.output.json(&render::check_json(&report))?;
    } else {
        session.output.text(&render::check_line(&report))?;
        if !session.voice().quiet {
            session.output.text(&render::check_points(&report))?;
        }
    }
    Ok(if report.is_good() { Exit::Done } else { Exit::Class(Class::Missed) })
}

/// Where the server is: options count before PostgreSQL's own variables.
fn connect(args: ConnectArgs, around: &Surroundings) -> Result<ConnectOptions, CliError> {
    let variable = |name: &'static str| around.get(name).map(|value| value.to_string_lossy().into_owned());
    let port = match variable("PGPORT").filter(|_| args.pg_port.is_none()) {
        Some(text) => text.parse().map_err(|_| CliError::BadVariable { name: "PGPORT", wanted: "a port" })?,
        None => args.pg_port.unwrap_or(5432),
    };
    let own = || String::from_utf8(user()).ok();
    let user = args.pg_user.or_else(|| variable("PGUSER")).or_else(own).unwrap_or_default();
    let mut options = ConnectOptions { port, sslmode: variable("PGSSLMODE"), ..ConnectOptions::new(&user) };
    let socket = || {
        let found = |place: &&str| Path::new(place).join(format!(".s.PGSQL.{port}")).exists();
        SOCKETS.into_iter().find(found).unwrap_or(SOCKETS[0]).to_owned()
    };
    options.host = args.pg_host.or_else(|| variable("PGHOST")).unwrap_or_else(socket);
    if let Some(database) = args.pg_database.or_else(|| variable("PGDATABASE")) {
        options.database = database;
    }
    options.password = match args.pg_password_file {
        Some(path) => Some(read_password(&paths::absolute(&path, &around.directory))?),
        None => password(&options, around)?,
    };
    Ok(options)
}

fn read_password(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let text = std::fs::read(path).map_err(|source| CliError::Read { path: path.to_owned(), source })?;
    let text = Zeroizing::new(text);
    let not_text = || {
        let source = std::io::ErrorKind::InvalidData.into();
        CliError::Read { path: path.to_owned(), source }
    };
    let text = str::from_utf8(&text).map_err(|_| not_text())?;
    Ok(Zeroizing::new(text.strip_suffix('\n').unwrap_or(text).to_owned()))
}

/// What PostgreSQL's own clients would use.
fn password(options: &ConnectOptions, around: &Surroundings) -> Result<Option<Zeroizing<String>>, CliError> {
    if let Some(password) = around.get("PGPASSWORD") {
        return Ok(password.to_str().map(|text| Zeroizing::new(text.to_owned())));
    }
    let named = around.get("PGPASSFILE").map(|path| paths::absolute(Path::new(path), &around.directory));
    let path = named.or_else(|| around.absolute("HOME").map(|home| home.join(".pgpass")));
    match path.map(|path| passfile::find(&path, options)).transpose() {
        // As PostgreSQL's clients do: it may not be needed.
        Err(PgError::OpenPassfile { .. }) => Ok(None),
        found => Ok(found.map_err(Error::from)?.flatten()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> ConnectArgs {
        ConnectArgs { pg_host: None, pg_port: None, pg_user: None, pg_database: None, pg_password_file: None }
    }

    #[test]
    fn options_count_before_the_variables_of_postgresql() {
        let around = Surroundings::of(&[
            ("PGHOST", "db.example"),
            ("PGPORT", "5433"),
            ("PGUSER", "ann"),
            ("PGDATABASE", "shop"),
            ("PGPASSWORD", "secret"),
        ]);
        let found = connect(none(), &around).unwrap();
        assert_eq!(found.place(), "db.example:5433");
        assert_eq!((found.user.as_str(), found.database.as_str()), ("ann", "shop"));
        assert_eq!(found.password.unwrap().as_str(), "secret");
        let args = ConnectArgs { pg_host: Some("/run/x".to_owned()), pg_port: Some(1), ..none() };
        assert_eq!(connect(args, &around).unwrap().place(), "/run/x/.s.PGSQL.1");
        assert!(connect(none(), &Surroundings::of(&[("PGPORT", "many")])).is_err());
    }
}
