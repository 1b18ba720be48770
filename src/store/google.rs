//! Google Cloud Storage: credentials as `gcloud` and its libraries find them.

use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey};

use super::connect::{Connector, client_options, retry};
use super::open::{OpenError, Taken, check_endpoint};
use super::options::Environment;

pub(super) fn open(
    bucket: &str,
    mut taken: Taken,
    environment: &Environment,
) -> Result<GoogleCloudStorage, OpenError> {
    let allow_http = taken.switch("allow_http")?;
    let mut settings = from_environment(environment);
    for (key, value) in taken.into_rest() {
        settings.push((key.parse()?, value));
    }
    let base = settings
        .iter()
        .rev()
        .find(|(key, _)| *key == GoogleConfigKey::BaseUrl)
        .map(|(_, value)| value.as_str());
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_client_options(client_options(check_endpoint(base, allow_http)?))
        .with_retry(retry())
        .with_http_connector(Connector);
    for (key, value) in settings {
        builder = builder.with_config(key, value);
    }
    Ok(builder.with_bucket_name(bucket).build()?)
}

fn from_environment(environment: &Environment) -> Vec<(GoogleConfigKey, String)> {
    let mut settings = Vec::new();
    for (name, value) in &environment.variables {
        let name = name.to_ascii_lowercase();
        if let Some(key) = name.starts_with("google_").then(|| name.parse::<GoogleConfigKey>().ok()).flatten()
            && !matches!(key, GoogleConfigKey::Client(_) | GoogleConfigKey::Bucket)
            && !value.is_empty()
        {
            settings.push((key, value.clone()));
        }
    }
    if let Some(path) = environment.get("SERVICE_ACCOUNT") {
        settings.push((GoogleConfigKey::ServiceAccount, path.to_owned()));
    }
    if let Some(host) = environment.get("STORAGE_EMULATOR_HOST") {
        let base = if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
        settings.push((GoogleConfigKey::BaseUrl, base));
        settings.push((GoogleConfigKey::SkipSignature, "true".to_owned()));
    }
    let named = |wanted: GoogleConfigKey| settings.iter().any(|(key, _)| *key == wanted);
    let directory = match environment.get("CLOUDSDK_CONFIG") {
        Some(directory) => Some(directory.into()),
        None => environment.home.as_ref().map(|home| home.join(".config/gcloud")),
    };
    if let Some(file) = directory.map(|directory| directory.join("application_default_credentials.json"))
        && !named(GoogleConfigKey::ApplicationCredentials)
        && !named(GoogleConfigKey::ServiceAccount)
        && !named(GoogleConfigKey::ServiceAccountKey)
        && file.exists()
    {
        settings.push((GoogleConfigKey::ApplicationCredentials, file.to_string_lossy().into_owned()));
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_credentials_are_used_only_when_none_are_named() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(".config/gcloud");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("application_default_credentials.json"), "{}").unwrap();
        let mut environment = Environment { home: Some(home.path().to_owned()), ..Environment::default() };
        let of = |environment: &Environment| {
            let found = from_environment(environment);
            found
                .into_iter()
                .find(|(key, _)| *key == GoogleConfigKey::ApplicationCredentials)
                .map(|(_, value)| value)
        };
        assert!(of(&environment).unwrap().ends_with("application_default_credentials.json"));
        environment.variables.insert("GOOGLE_APPLICATION_CREDENTIALS".into(), "/named".into());
        assert_eq!(of(&environment).unwrap(), "/named");
    }
}
