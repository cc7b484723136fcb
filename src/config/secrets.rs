//! What must not be printed: passwords, tokens and keys, by their names and inside URLs.

/// What stands in the place of a secret.
pub const MASK: &str = "********";

/// Properties of librdkafka whose values may hold a secret though their names do not say so: the client's
/// own, what is sent along with its token, and a command line with a keytab's password.
const SECRET_VALUES: [&str; 3] = ["oauthbearer.config", "oauthbearer.extensions", "kerberos.kinit.cmd"];

/// Whether a key's name says that its value is a secret. Names of files that hold one are not.
pub fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    let words: Vec<&str> = key.split(['.', '_', '-']).collect();
    let names_a_place = matches!(words.last(), Some(&("location" | "file" | "path" | "dir" | "url" | "id" | "ids")));
    let secret_word = |word: &&str| {
        matches!(
            *word,
            "password"
                | "passwd"
                | "passphrase"
                | "secret"
                | "secrets"
                | "token"
                | "credential"
                | "credentials"
                | "apikey"
                | "jaas"
        )
    };
    let secret_key = || {
        let key_at = words.iter().position(|word| *word == "key");
        key_at.is_some_and(|at| at + 1 == words.len() || words[at + 1] == "pem")
    };
    let secret_value = || SECRET_VALUES.iter().any(|name| key.ends_with(name));
    !names_a_place && (words.iter().any(secret_word) || secret_key() || secret_value())
}

/// The text with the password of each `scheme://user:password@host` masked, and the values of query
/// parameters whose names are secret.
pub fn mask_url(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        masked.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(after.len());
        let (url, following) = after.split_at(end);
        masked.push_str(&mask_authority_and_query(url));
        rest = following;
    }
    masked + rest
}

fn mask_authority_and_query(url: &str) -> String {
    let authority_end = url.find(['/', '?', '#']).unwrap_or(url.len());
    // A password may itself hold `/` or `@` unescaped: the last `@` before the path, or else of all.
    let at = url[..authority_end].rfind('@').or_else(|| url.rfind('@').filter(|at| url[..*at].contains(':')));
    let (user, rest) = match at {
        Some(at) => url.split_at(at),
        None => ("", url),
    };
    let user = match user.split_once(':') {
        Some((name, _)) => format!("{name}:{MASK}"),
        None => user.to_owned(),
    };
    let Some((path, query)) = rest.split_once('?') else { return user + rest };
    let query: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => format!("{name}={MASK}"),
            _ => pair.to_owned(),
        })
        .collect();
    format!("{user}{path}?{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets() {
        for key in [
            "kafka.properties.sasl.password",
            "kafka.properties.ssl.key.password",
            "kafka.properties.ssl.key.pem",
            "kafka.properties.ssl.keystore.password",
            "kafka.properties.sasl.oauthbearer.client.secret",
            "kafka.properties.sasl.oauthbearer.config",
            "kafka.properties.sasl.oauthbearer.extensions",
            "kafka.properties.sasl.kerberos.kinit.cmd",
            "registry.api_key",
            "registry.token",
            "kafka.schema_registry.password",
            "kafka.schema_registry.token",
        ] {
            assert!(is_secret(key), "{key}");
        }
        for key in [
            "kafka.properties.ssl.key.location",
            "kafka.properties.sasl.username",
            "kafka.properties.sasl.kerberos.keytab",
            "kafka.properties.ssl.ca.location",
            "kafka.properties.sasl.oauthbearer.token.endpoint.url",
            "kafka.schema_registry.key_file",
            "tagger.batch_tokens",
            "worker.keys",
        ] {
            assert!(!is_secret(key), "{key}");
        }
    }

    #[test]
    fn secrets_in_urls() {
        assert_eq!(mask_url("https://alice:hunter2@host:81/x?y=1"), format!("https://alice:{MASK}@host:81/x?y=1"));
        assert_eq!(mask_url("http://h/p?token=abc&n=2"), format!("http://h/p?token={MASK}&n=2"));
        assert_eq!(mask_url("a://u:p/w@h, b://v:q@i"), format!("a://u:{MASK}@h, b://v:{MASK}@i"));
        assert_eq!(mask_url("http://host/mail@home"), "http://host/mail@home");
        assert_eq!(mask_url("broker-1:9092,broker-2:9092"), "broker-1:9092,broker-2:9092");
    }
}
