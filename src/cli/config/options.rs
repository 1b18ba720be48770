//! Options of a store that may stand in the file: those of which none can be a secret. Whatever is not known here is refused, so
//! that a key which a client of a cloud learns later is not taken for harmless.

/// What comes before the names of a cloud's options.
const PREFIXES: [&str; 4] = ["aws_", "azure_storage_", "azure_", "google_"];

/// Names without such a beginning; where several mean the same, they stand in one row.
const KNOWN: &[&[&str]] = &[
    &["create_only"],
    &["unsafe_no_fsync"],
    &["direct_io"],
    &["ssh.command"],
    &["ssh.program"],
    &["https.token_file", "https.token_command"],
    &["https.ca_file"],
    &["access_key_id"],
    &["region", "default_region"],
    &["endpoint", "endpoint_url", "endpoint_url_s3"],
    &["endpoint_url_sts"],
    &["virtual_hosted_style_request"],
    &["s3_express"],
    &["request_payer"],
    &["imdsv1_fallback"],
    &["metadata_endpoint"],
    &["unsigned_payload"],
    &["checksum_algorithm"],
    &["skip_signature"],
    &["disable_tagging"],
    &["web_identity_token_file"],
    &["role_arn"],
    &["role_session_name"],
    &["container_authorization_token_file"],
    &["server_side_encryption"],
    &["sse_kms_key_id"],
    &["sse_bucket_key_enabled"],
    &["account_name", "account"],
    &["client_id"],
    &["tenant_id", "authority_id"],
    &["authority_host"],
    &["use_emulator"],
    &["use_azure_cli"],
    &["msi_endpoint", "identity_endpoint"],
    &["object_id"],
    &["msi_resource_id"],
    &["federated_token_file"],
    &["service_account", "service_account_path"],
    &["application_credentials"],
    &["base_url"],
    &["allow_http"],
    &["allow_invalid_certificates"],
    &["connect_timeout"],
    &["read_timeout"],
    &["timeout"],
    &["pool_idle_timeout"],
    &["pool_max_idle_per_host"],
    &["http1_only"],
    &["http2_only"],
    &["proxy_url"],
    &["proxy_excludes"],
    &["user_agent"],
];

fn plain(key: &str) -> String {
    let key = key.to_ascii_lowercase();
    let short = PREFIXES.iter().find_map(|prefix| key.strip_prefix(prefix)).map(str::to_owned);
    short.unwrap_or(key)
}

fn names(key: &str) -> Option<&'static [&'static str]> {
    let plain = plain(key);
    KNOWN.iter().copied().find(|names| names.contains(&plain.as_str()))
}

/// Whether it may stand in the file.
pub(super) fn is_known(key: &str) -> bool {
    names(key).is_some()
}

/// Whether a value has a name and a password of somebody in it: `http://user:password@host`.
pub(super) fn names_somebody(value: &str) -> bool {
    let host =
        |(_, rest): (&str, &str)| rest.split(['/', '?', '#']).next().is_some_and(|host| host.contains('@'));
    value.split_once("://").is_some_and(host)
}

/// The one name of an option that has several.
pub(crate) fn option_of(key: &str) -> String {
    names(key).and_then(|names| names.first()).map_or_else(|| plain(key), |first| (*first).to_owned())
}

/// The variables that say the same of a store at this location, and count before the file.
pub(crate) fn variables_of(key: &str, location: &str) -> Vec<String> {
    let own: &[&str] = match option_of(key).as_str() {
        "https.token_file" => &["LIFEBOAT_TOKEN", "LIFEBOAT_TOKEN_FILE", "LIFEBOAT_TOKEN_COMMAND"],
        "https.ca_file" => &["LIFEBOAT_CA_FILE"],
        "ssh.command" => &["LIFEBOAT_SSH_COMMAND"],
        "base_url" => &["STORAGE_EMULATOR_HOST"],
        "msi_endpoint" => &["IDENTITY_ENDPOINT"],
        _ => &[],
    };
    let scheme = location.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let prefixes: &[&str] = match scheme.as_str() {
        "s3" => &["aws_"],
        "gs" => &["google_"],
        "az" | "azure" | "abfs" | "abfss" => &["azure_storage_", "azure_"],
        _ => &[],
    };
    let named = prefixes.iter().flat_map(|prefix| {
        names(key).unwrap_or_default().iter().map(move |name| format!("{prefix}{name}").to_ascii_uppercase())
    });
    own.iter().map(|name| (*name).to_owned()).chain(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_a_secret_is_known() {
        for fine in ["aws_access_key_id", "https.token_file", "https.token_command", "Region", "ssh.command"]
        {
            assert!(is_known(fine), "{fine}");
        }
        for bad in [
            "aws_secret_access_key",
            "AZURE_STORAGE_ACCOUNT_KEY",
            "azure_storage_master_key",
            "aws_sse_customer_key_base64",
            "azure_storage_encryption_key",
            "azure_fabric_session_token",
            "aws_container_credentials_full_uri",
            "bearer_token",
            "sas_token",
            "client_secret",
            "session_token",
            "service_account_key",
            "unheard_of",
        ] {
            assert!(!is_known(bad), "{bad}");
        }
        assert!(names_somebody("http://u:p@proxy:3128") && names_somebody("https://u@h/x"));
        assert!(!names_somebody("https://host/a@b") && !names_somebody("a@b"));
    }

    #[test]
    fn names_of_one_option_are_one() {
        assert_eq!(option_of("AWS_DEFAULT_REGION"), option_of("region"));
        assert_eq!(option_of("https.token_command"), option_of("https.token_file"));
        assert_ne!(option_of("endpoint_url_sts"), option_of("endpoint"));
        let variables = variables_of("region", "s3://b");
        assert_eq!(variables, ["AWS_REGION", "AWS_DEFAULT_REGION"]);
        assert!(variables_of("endpoint", "az://b").iter().all(|name| name.starts_with("AZURE_")));
        assert!(variables_of("create_only", "/x").is_empty());
    }
}
