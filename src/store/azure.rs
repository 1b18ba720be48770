//! Azure Blob Storage: credentials as `az` and its libraries find them.

use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};

use super::connect::{Connector, client_options, retry};
use super::open::{OpenError, Taken, check_endpoint};
use super::options::Environment;

type Settings = Vec<(AzureConfigKey, String)>;

pub(super) fn open(
    account: Option<&str>,
    container: &str,
    mut taken: Taken,
    environment: &Environment,
) -> Result<MicrosoftAzure, OpenError> {
    let allow_http = taken.switch("allow_http")?;
    let mut settings = from_environment(environment);
    for (key, value) in taken.into_rest() {
        settings.push((key.parse()?, value));
    }
    let last = |wanted: AzureConfigKey| {
        settings.iter().rev().find(|(key, _)| *key == wanted).map(|(_, value)| value.as_str())
    };
    let emulator = last(AzureConfigKey::UseEmulator).is_some_and(|text| text != "false" && text != "0");
    if account.is_none() && last(AzureConfigKey::AccountName).is_none() && !emulator {
        return Err(OpenError::NoAccount);
    }
    let mut builder = MicrosoftAzureBuilder::new()
        .with_client_options(client_options(check_endpoint(last(AzureConfigKey::Endpoint), allow_http)?))
        .with_retry(retry())
        .with_http_connector(Connector)
        .with_use_azure_cli(has_cli(environment));
    for (key, value) in settings {
        builder = builder.with_config(key, value);
    }
    if let Some(account) = account {
        builder = builder.with_account(account);
    }
    Ok(builder.with_container_name(container).build()?)
}

/// Whether someone is logged in with `az`; it is asked only when nothing else gives credentials.
fn has_cli(environment: &Environment) -> bool {
    let directory = match environment.get("AZURE_CONFIG_DIR") {
        Some(directory) => Some(directory.into()),
        None => environment.home.as_ref().map(|home| home.join(".azure")),
    };
    directory.is_some_and(|directory| directory.join("azureProfile.json").exists())
}

fn from_environment(environment: &Environment) -> Settings {
    let mut settings =
        environment.get("AZURE_STORAGE_CONNECTION_STRING").map(from_connection_string).unwrap_or_default();
    for (name, value) in &environment.variables {
        let name = name.to_ascii_lowercase();
        let key = match name.as_str() {
            "azure_storage_account" => Some(AzureConfigKey::AccountName),
            "azure_storage_key" => Some(AzureConfigKey::AccessKey),
            "identity_endpoint" => Some(AzureConfigKey::MsiEndpoint),
            _ if name.starts_with("azure_") => name.parse().ok(),
            _ => None,
        };
        if let Some(key) = key
            && !matches!(key, AzureConfigKey::Client(_) | AzureConfigKey::ContainerName)
            && !value.is_empty()
        {
            settings.push((key, value.clone()));
        }
    }
    settings
}

/// `Name=value;…`, as the portal gives it out.
fn from_connection_string(text: &str) -> Settings {
    let mut settings = Settings::new();
    for (name, value) in text.split(';').filter_map(|pair| pair.trim().split_once('=')) {
        let key = match name {
            "AccountName" => AzureConfigKey::AccountName,
            "AccountKey" => AzureConfigKey::AccessKey,
            "BlobEndpoint" => AzureConfigKey::Endpoint,
            "SharedAccessSignature" => AzureConfigKey::SasKey,
            "UseDevelopmentStorage" => AzureConfigKey::UseEmulator,
            _ => continue,
        };
        settings.push((key, value.to_owned()));
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_gives_its_parts() {
        let text =
            "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=aGk=;EndpointSuffix=core.windows.net";
        let settings = from_connection_string(text);
        assert_eq!(
            settings,
            [(AzureConfigKey::AccountName, "acc".to_owned()), (AzureConfigKey::AccessKey, "aGk=".to_owned())]
        );
        assert!(from_connection_string(";;=;nonsense").is_empty());
    }
}
