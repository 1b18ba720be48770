//! The files `~/.aws/credentials` and `~/.aws/config`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::open::{OpenError, read_optional};
use super::super::options::Environment;

/// Where a profile takes its credentials from.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Source {
    /// It says nothing of credentials.
    #[default]
    None,
    /// They stand in it.
    Keys { id: String, secret: String, token: Option<String> },
    /// A command prints them.
    Process(String),
    /// In a way that is not understood here: the setting's name.
    Unknown(String),
}

/// What a profile says.
#[derive(Debug, Default)]
pub(super) struct Profile {
    pub(super) name: String,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) source: Source,
}

type Section = BTreeMap<String, String>;

/// The profile that the environment names, or `default`. A named one must exist.
pub(super) fn load(environment: &Environment) -> Result<Profile, OpenError> {
    let named = environment.get("AWS_PROFILE").or_else(|| environment.get("AWS_DEFAULT_PROFILE"));
    let name = named.unwrap_or("default").to_owned();
    let read = |variable: &str, file: &str, header: &str| -> Result<Option<Section>, OpenError> {
        let path = match environment.get(variable) {
            Some(path) => Some(PathBuf::from(path)),
            None => environment.home.as_ref().map(|home| home.join(".aws").join(file)),
        };
        let text = path.map_or(Ok(None), |path| read_optional(&path))?;
        Ok(text.and_then(|text| section(&text, header)))
    };
    let credentials = read("AWS_SHARED_CREDENTIALS_FILE", "credentials", &name)?;
    let header = if name == "default" { name.clone() } else { format!("profile {name}") };
    let config = read("AWS_CONFIG_FILE", "config", &header)?;
    if named.is_some() && credentials.is_none() && config.is_none() {
        return Err(OpenError::NoProfile { profile: name });
    }
    let (credentials, config) = (credentials.unwrap_or_default(), config.unwrap_or_default());
    let either = |key: &str| config.get(key).or_else(|| credentials.get(key)).cloned();
    let source = [&credentials, &config].into_iter().map(source_of).find(|source| *source != Source::None);
    Ok(Profile {
        name,
        region: either("region"),
        endpoint: either("endpoint_url"),
        source: source.unwrap_or_default(),
    })
}

fn source_of(section: &Section) -> Source {
    let get = |key: &str| section.get(key).cloned();
    if let (Some(id), Some(secret)) = (get("aws_access_key_id"), get("aws_secret_access_key")) {
        return Source::Keys { id, secret, token: get("aws_session_token") };
    }
    if let Some(command) = get("credential_process") {
        return Source::Process(command);
    }
    let unknown = ["sso_session", "sso_start_url", "role_arn", "login_session", "web_identity_token_file"];
    unknown
        .iter()
        .find(|key| section.contains_key(**key))
        .map_or(Source::None, |key| Source::Unknown((*key).to_owned()))
}

/// The settings of the section with this header, keys in lower case. Indented lines belong to a setting of several parts.
fn section(text: &str, header: &str) -> Option<Section> {
    let mut found: Option<Section> = None;
    let mut inside = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) || line.starts_with([' ', '\t']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let name: Vec<&str> = name.split_whitespace().collect();
            inside = name.join(" ") == header;
            if inside {
                found.get_or_insert_default();
            }
        } else if let (true, Some((key, value)), Some(section)) =
            (inside, trimmed.split_once('='), &mut found)
        {
            let value = value.split(" #").next().unwrap_or_default().trim();
            section.insert(key.trim().to_ascii_lowercase(), value.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "# comment\n[default]\nregion=eu-1\ns3 =\n  region = not-this\n[profile  work]\n\
                          Region = eu-2 # note\ncredential_process = /bin/x --a=b\n[broken\n= \n[profile sso]\nsso_session = s\n";

    #[test]
    fn sections_are_read_as_amazons_tools_do() {
        assert_eq!(section(CONFIG, "default").unwrap()["region"], "eu-1");
        let work = section(CONFIG, "profile work").unwrap();
        assert_eq!(work["region"], "eu-2");
        assert_eq!(source_of(&work), Source::Process("/bin/x --a=b".to_owned()));
        let sso = section(CONFIG, "profile sso").unwrap();
        assert_eq!(source_of(&sso), Source::Unknown("sso_session".to_owned()));
        assert_eq!(section(CONFIG, "profile other"), None);
    }

    #[test]
    fn a_profile_that_is_named_must_exist() {
        let home = tempfile::tempdir().unwrap();
        let mut environment = Environment { home: Some(home.path().to_owned()), ..Environment::default() };
        assert_eq!(load(&environment).unwrap().source, Source::None);
        environment.variables.insert("AWS_PROFILE".into(), "work".into());
        assert!(matches!(load(&environment), Err(OpenError::NoProfile { profile }) if profile == "work"));
        std::fs::write(home.path().join("c"), CONFIG).unwrap();
        environment
            .variables
            .insert("AWS_CONFIG_FILE".into(), home.path().join("c").to_str().unwrap().into());
        assert_eq!(load(&environment).unwrap().region.as_deref(), Some("eu-2"));
    }
}
