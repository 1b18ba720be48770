//! S3 and what speaks like it: credentials and addresses as Amazon's own tools find them.
//!
//! In order: options, the environment, a web identity token, the profile files, the container's and the machine's metadata.

mod lock;
mod process;
mod profile;
mod vault;
mod xml;

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::client::HttpConnector;

pub(super) use self::lock::Retain;
use self::lock::{LockConnector, Signing};

use self::process::ProcessCredentials;
use self::profile::{Profile, Source};
pub(super) use self::vault::{Vault, Version};
use super::connect::{Connector, client_options, retry};
use super::open::{OpenError, Taken, check_endpoint};
use super::options::{Environment, StoreEnv};

/// What is known of the store before the client is made: settings in the order in which they count, later ones more.
struct Plan {
    settings: Vec<(AmazonS3ConfigKey, String)>,
    process: Option<String>,
}

impl Plan {
    fn last(&self, wanted: AmazonS3ConfigKey) -> Option<&str> {
        self.settings.iter().rev().find(|(key, _)| *key == wanted).map(|(_, value)| value.as_str())
    }

    fn has(&self, wanted: AmazonS3ConfigKey) -> bool {
        self.last(wanted).is_some()
    }

    fn endpoint(&self) -> Option<&str> {
        self.last(AmazonS3ConfigKey::S3Endpoint).or_else(|| self.last(AmazonS3ConfigKey::Endpoint))
    }
}

pub(super) fn open(
    bucket: &str,
    mut taken: Taken,
    environment: &Environment,
    env: &StoreEnv,
) -> Result<Vault, OpenError> {
    let allow_http = taken.switch("allow_http")?;
    let plan = plan(taken.into_rest(), environment)?;
    let endpoint = plan.endpoint();
    let mut client = client_options(check_endpoint(endpoint, allow_http)?);
    let connector = LockConnector::default();
    let signing = Arc::clone(&connector.signing);
    let mut builder = AmazonS3Builder::new()
        .with_client_options(client.clone())
        .with_retry(retry())
        .with_http_connector(connector)
        // One object a request: every store knows it, and a bulk reply that is cut short would read as success.
        .with_disable_bulk_delete(true);
    let encrypted = endpoint.is_none_or(|endpoint| endpoint.starts_with("https"));
    if encrypted && !plan.has(AmazonS3ConfigKey::UnsignedPayload) {
        builder = builder.with_unsigned_payload(true);
    }
    if endpoint.is_none() {
        if !plan.has(AmazonS3ConfigKey::Checksum) {
            builder = builder.with_checksum_algorithm(Checksum::CRC64NVME);
        }
        // A dot in the name does not fit the certificate of the virtual host.
        if !plan.has(AmazonS3ConfigKey::VirtualHostedStyleRequest) && !bucket.contains(['.', '_']) {
            builder = builder.with_virtual_hosted_style_request(true);
        }
    }
    if let Some(command) = &plan.process {
        builder = builder.with_credentials(Arc::new(ProcessCredentials::new(command.clone(), env.clone())));
    }
    for (key, value) in plan.settings {
        if let AmazonS3ConfigKey::Client(key) = key {
            client = client.with_config(key, value.clone());
        }
        builder = builder.with_config(key, value);
    }
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region).unwrap_or_else(|| REGION.to_owned());
    let s3 = Arc::new(builder.with_bucket_name(bucket).build()?);
    let signer = Signing { credentials: Arc::clone(s3.credentials()), region };
    // Nobody has set it before: the connector was made here.
    signing.get_or_init(|| signer);
    Ok(Vault { client: Connector.connect(&client)?, s3, signing })
}

/// The region that the client takes when none is named.
const REGION: &str = "us-east-1";

fn plan(options: Vec<(String, String)>, environment: &Environment) -> Result<Plan, OpenError> {
    let mut given = Vec::new();
    for (key, value) in options {
        let key = match key.parse::<AmazonS3ConfigKey>()? {
            // What the user says on the command line counts more than any address in the environment.
            AmazonS3ConfigKey::Endpoint => AmazonS3ConfigKey::S3Endpoint,
            AmazonS3ConfigKey::DefaultRegion => AmazonS3ConfigKey::Region,
            key => key,
        };
        given.push((key, value));
    }
    let mut plan = Plan { settings: Vec::new(), process: None };
    for (name, value) in &environment.variables {
        let name = name.to_ascii_lowercase();
        if let Some(key) = name.starts_with("aws_").then(|| name.parse::<AmazonS3ConfigKey>().ok()).flatten()
            && !matches!(key, AmazonS3ConfigKey::Client(_) | AmazonS3ConfigKey::Bucket)
            && !value.is_empty()
        {
            plan.settings.push((key, value.clone()));
        }
    }
    let keyed = |settings: &[(AmazonS3ConfigKey, String)]| {
        settings.iter().any(|(key, _)| *key == AmazonS3ConfigKey::AccessKeyId)
    };
    let token = plan.has(AmazonS3ConfigKey::WebIdentityTokenFile) && plan.has(AmazonS3ConfigKey::RoleArn);
    let skip = given.iter().any(|(key, value)| *key == AmazonS3ConfigKey::SkipSignature && value == "true");
    if keyed(&given) {
        // A token of the environment does not belong to a key of the command line.
        plan.settings.retain(|(key, _)| *key != AmazonS3ConfigKey::Token);
    }
    let wanted = !(keyed(&given) || keyed(&plan.settings) || token || skip);
    let profile = profile::load(environment)?;
    plan.fill_from(profile, wanted)?;
    plan.settings.append(&mut given);
    Ok(plan)
}

impl Plan {
    /// Takes from the profile what nothing else has said.
    fn fill_from(&mut self, profile: Profile, credentials: bool) -> Result<(), OpenError> {
        let mut first = Vec::new();
        if let Some(region) = profile.region
            && !self.has(AmazonS3ConfigKey::Region)
            && !self.has(AmazonS3ConfigKey::DefaultRegion)
        {
            first.push((AmazonS3ConfigKey::Region, region));
        }
        if let Some(endpoint) = profile.endpoint
            && self.endpoint().is_none()
        {
            first.push((AmazonS3ConfigKey::Endpoint, endpoint));
        }
        if credentials {
            match profile.source {
                Source::Keys { id, secret, token } => {
                    first.push((AmazonS3ConfigKey::AccessKeyId, id));
                    first.push((AmazonS3ConfigKey::SecretAccessKey, secret));
                    first.extend(token.map(|token| (AmazonS3ConfigKey::Token, token)));
                }
                Source::Process(command) => self.process = Some(command),
                Source::Unknown(setting) => {
                    return Err(OpenError::Profile { profile: profile.name, setting });
                }
                Source::None => {}
            }
        }
        self.settings.splice(0..0, first);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Environment { variables, ..Environment::default() }
    }

    fn options(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn options_count_more_than_the_environment_and_that_more_than_a_profile() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let credentials =
            "[default]\naws_access_key_id = P\naws_secret_access_key = PS\naws_session_token = PT\n";
        std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        let config = "[default]\nregion = profile-1\nendpoint_url = https://profile.example\n";
        std::fs::write(home.path().join(".aws/config"), config).unwrap();
        use AmazonS3ConfigKey as K;
        let at_home = |mut environment: Environment| {
            environment.home = Some(home.path().to_owned());
            environment
        };

        let found = plan(Vec::new(), &at_home(environment(&[]))).unwrap();
        assert_eq!((found.last(K::AccessKeyId), found.last(K::Token)), (Some("P"), Some("PT")));
        assert_eq!(
            (found.last(K::Region), found.endpoint()),
            (Some("profile-1"), Some("https://profile.example"))
        );

        let keys =
            [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "ES"), ("AWS_ENDPOINT_URL", "https://e")];
        let found = plan(Vec::new(), &at_home(environment(&keys))).unwrap();
        assert_eq!((found.last(K::AccessKeyId), found.last(K::Token)), (Some("E"), None));
        assert_eq!((found.last(K::Region), found.endpoint()), (Some("profile-1"), Some("https://e")));

        let given = options(&[("endpoint", "https://o"), ("access_key_id", "O"), ("region", "o-1")]);
        let found = plan(given, &at_home(environment(&keys))).unwrap();
        assert_eq!((found.last(K::AccessKeyId), found.last(K::Region)), (Some("O"), Some("o-1")));
        assert_eq!(found.endpoint(), Some("https://o"));
    }

    #[test]
    fn an_unknown_option_is_named_and_plain_http_needs_no_variable() {
        let error = plan(options(&[("regoin", "x")]), &environment(&[])).err().unwrap();
        assert!(error.to_string().contains("regoin"), "{error}");
        let found =
            plan(Vec::new(), &environment(&[("AWS_ALLOW_HTTP", "true"), ("AWS_NONSENSE", "x")])).unwrap();
        assert!(found.settings.is_empty());
    }
}
