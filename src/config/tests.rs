use super::*;
use std::io::Write as _;

fn load(file: &str, variables: &[(&str, &str)], flags: &[Flag]) -> Result<Loaded, Error> {
    let mut written = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    written.write_all(file.as_bytes()).unwrap();
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Config::load(Some(written.path()), variables, flags)
}

fn problems(file: &str, variables: &[(&str, &str)], flags: &[Flag]) -> Vec<Problem> {
    match load(file, variables, flags) {
        Err(Error::Problems(problems)) => problems,
        other => panic!("problems expected, not {other:?}"),
    }
}

#[test]
fn the_embedded_file_is_the_defaults() {
    let loaded = Config::load(None, [], &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.origins.is_empty());
}

/// Every key of the structs stands in default.toml under its section, with a comment before it,
/// and nothing else does.
#[test]
fn the_embedded_file_names_and_explains_every_key() {
    let mut documented = Vec::new();
    let mut section = String::new();
    let mut previous = "";
    for line in DEFAULT_TOML.lines() {
        let key = line.strip_prefix("# ").unwrap_or(line);
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            assert!(previous.starts_with("# "), "[{section}] has no comment");
        } else if let Some((key, _)) = key.split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        {
            assert!(previous.starts_with("# "), "{section}.{key} has no comment");
            documented.push(format!("{section}.{key}"));
        }
        previous = line;
    }
    let mut known = Vec::new();
    keys("", &check::schema(), &mut known);
    documented.sort();
    known.sort();
    assert_eq!(documented, known);
}

fn keys(path: &str, value: &serde_json::Value, known: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(inner) => {
            for (key, value) in inner {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                keys(&path, value, known);
            }
        }
        _ => known.push(path.to_owned()),
    }
}

#[test]
fn later_layers_win_and_origins_are_kept() {
    let file = "[log]\nlevel = 'debug'\nformat = 'json'\n[http]\nlisten = '127.0.0.1:1'\n";
    let flag = Flag { name: "--log-level", key: "log.level", value: "trace".into() };
    let loaded = load(file, &[("LITFLOW_HTTP__LISTEN", "127.0.0.1:2")], &[flag]).unwrap();
    assert_eq!(loaded.config.log.level, "trace");
    assert_eq!(loaded.config.log.format, telemetry::Format::Json);
    assert_eq!(loaded.config.http.listen, Some("127.0.0.1:2".parse().unwrap()));
    assert_eq!(loaded.origins["log.level"], "--log-level");
    assert_eq!(loaded.origins["http.listen"], "LITFLOW_HTTP__LISTEN");
    assert!(loaded.origins["log.format"].ends_with(".toml:3"), "{:?}", loaded.origins);
}

#[test]
fn all_problems_are_told_at_once() {
    let file = "[log]\nlevl = 'debug'\nformat = 'xml'\n\n[htp]\nlisten = 'x'\n";
    let variables = [
        ("LITFLOW_HTTP__LISTEN", "localhost"),
        ("LITFLOW_LOG_LEVEL", "info"),
        ("LITFLOW_LOG__LEVEL", "a=loud"),
        ("LITFLOW_CONFIG", "elsewhere.toml"),
        ("LITFLOW_SERVICE_HOST", "10.0.0.1"),
        ("LITFLOW_PORT_9464_TCP_ADDR", "10.0.0.1"),
        ("PATH", "/bin"),
    ];
    let problems = problems(file, &variables, &[]);
    let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
    let expected = [
        ("log_level", "LITFLOW_LOG_LEVEL", "did you mean LITFLOW_LOG__LEVEL?"),
        ("htp", ".toml:6", "did you mean `http`?"),
        ("http.listen", "LITFLOW_HTTP__LISTEN", "\"localhost\" is refused"),
        ("log.format", ".toml:3", "expected `text` or `json`"),
        ("log.levl", ".toml:2", "did you mean `level`?"),
        ("log.level", "LITFLOW_LOG__LEVEL", "no log filter"),
    ];
    assert_eq!(problems.len(), expected.len(), "{told:#?}");
    for ((key, origin, message), (problem, told)) in expected.iter().zip(problems.iter().zip(&told)) {
        assert_eq!(problem.key, *key);
        assert!(told.contains(origin) && told.contains(message), "{told}");
    }
}

#[test]
fn types_are_checked_where_they_stand() {
    assert_eq!(problems("[log]\nlevel = 3\n", &[], &[])[0].message, "3 is refused: a string is expected");
    assert_eq!(problems("log = 3\n", &[], &[])[0].message, "this is a section, not a value");
    assert!(matches!(load("[log\n", &[], &[]), Err(Error::Syntax { .. })));
    let missing = Config::load(Some(Path::new("/nowhere/litflow.toml")), [], &[]).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/litflow.toml"), "{missing}");
}

#[test]
fn an_empty_variable_unsets_an_optional_key() {
    let loaded = load("[http]\nlisten = '127.0.0.1:1'\n", &[("LITFLOW_HTTP__LISTEN", "")], &[]).unwrap();
    assert_eq!(loaded.config.http.listen, None);
}

#[test]
fn properties_pass_through_in_every_spelling() {
    let file = "[kafka.properties]\nsecurity.protocol = 'SASL_SSL'\n'sasl.username' = 'me'\n[kafka.consumer]\n'fetch.min.bytes' = 5\n";
    let variables = [("LITFLOW_KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2")];
    let loaded = load(file, &variables, &[]).unwrap();
    let properties: Vec<(&str, &str)> =
        loaded.config.kafka.properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [("sasl.password", "hunter2"), ("sasl.username", "me"), ("security.protocol", "SASL_SSL")];
    assert_eq!(properties, expected);
    assert_eq!(loaded.config.kafka.consumer["fetch.min.bytes"], "5");
    assert_eq!(loaded.origins["kafka.properties.sasl.password"], "LITFLOW_KAFKA__PROPERTIES__SASL_PASSWORD");

    let shown = Shown(&loaded).toml();
    assert!(shown.contains(&format!("\"sasl.password\" = \"{}\"", secrets::MASK)), "{shown}");
    assert!(!shown.contains("hunter2") && !Shown(&loaded).json().to_string().contains("hunter2"));
    assert!(toml::from_str::<toml::Table>(&shown).is_ok(), "{shown}");
}

#[test]
fn secrets_stand_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let secret = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (password, token) = (secret("password", "hunter2\r\n"), secret("token", "a\nb\n"));
    let file = format!(
        "[kafka.properties]\nsecurity.protocol = 'SASL_SSL'\nsasl.password_file = '{password}'\n[mlflow]\ntoken_file = '{token}'\n"
    );
    let variables = [
        ("LITFLOW_KAFKA__PRODUCER__SSL_KEY_PASSWORD_FILE", password.as_str()),
        ("LITFLOW_KAFKA__CONSUMER__SASL_OAUTHBEARER_CLIENT_SECRET_FILE", password.as_str()),
        ("LITFLOW_REGISTRY__OPTIONS__AWS_SECRET_ACCESS_KEY_FILE", password.as_str()),
        ("LITFLOW_REGISTRY__OPTIONS__AWS_WEB_IDENTITY_TOKEN_FILE", "/theirs"),
        ("LITFLOW_HTTP__ADMIN_TOKEN_FILE", ""),
    ];
    let loaded = load(&file, &variables, &[]).unwrap();
    let config = &loaded.config;
    assert_eq!(config.kafka.properties["sasl.password"], "hunter2");
    assert_eq!(config.kafka.producer["ssl.key.password"], "hunter2");
    assert_eq!(config.kafka.consumer["sasl.oauthbearer.client.secret"], "hunter2");
    assert_eq!(config.registry.options["aws_secret_access_key"], "hunter2");
    assert_eq!(config.registry.options["aws_web_identity_token_file"], "/theirs");
    assert_eq!(config.mlflow.token.as_deref(), Some("a\nb"));
    assert_eq!(config.http.admin_token, None);
    assert_eq!(
        loaded.origins["kafka.producer.ssl.key.password"],
        format!("{password}, named by LITFLOW_KAFKA__PRODUCER__SSL_KEY_PASSWORD_FILE")
    );
    let shown = Shown(&loaded).toml() + &Shown(&loaded).json().to_string();
    assert!(!shown.contains("hunter2") && shown.contains(&password), "{shown}");

    // A later layer wins, whichever of the two it uses.
    let loaded = load(&file, &[("LITFLOW_KAFKA__PROPERTIES__SASL_PASSWORD", "later")], &[]).unwrap();
    assert_eq!(loaded.config.kafka.properties["sasl.password"], "later");
}

#[test]
fn files_that_hold_no_secret_are_refused_without_their_contents() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |bytes: &[u8]| {
        let path = folder.path().join("secret");
        std::fs::write(&path, bytes).unwrap();
        let path = path.display().to_string();
        let problems = problems("", &[("LITFLOW_MLFLOW__TOKEN_FILE", path.as_str())], &[]);
        assert_eq!((problems.len(), problems[0].key.as_str()), (1, "mlflow.token_file"), "{problems:?}");
        let told = problems[0].to_string();
        assert!(told.contains(&path) && told.contains("LITFLOW_MLFLOW__TOKEN_FILE"), "{told}");
        told
    };
    assert!(refusal(b"\n").contains("it is empty"));
    assert!(refusal(&vec![b'x'; 65_537]).contains("more than 65536 bytes"));
    assert!(refusal(b"hunter2\xFF").contains("UTF-8"));
    let told = refusal(b"hunter2\0");
    assert!(told.contains("zero byte") && !told.contains("hunter2"), "{told}");
    let missing = problems("", &[("LITFLOW_MLFLOW__TOKEN_FILE", "/nowhere/token")], &[]);
    assert!(missing.len() == 1 && missing[0].message.contains("/nowhere/token"), "{missing:?}");
    let both = problems("[mlflow]\ntoken = 'hunter2'\ntoken_file = '/nowhere'\n", &[], &[]);
    assert!(both.len() == 1 && both[0].message == "token is set, too", "{both:?}");
    // A key that holds no secret has no such twin.
    let other = problems("[kafka]\ngroup_id_file = '/nowhere'\n", &[], &[]);
    assert!(other.len() == 1 && other[0].message == "unknown key", "{other:?}");
}

#[test]
fn the_admin_listener_takes_a_token() {
    let listen = ("LITFLOW_HTTP__ADMIN_LISTEN", "127.0.0.1:1");
    let told = |variables: &[(&str, &str)]| {
        problems("", variables, &[]).iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
    };
    assert!(told(&[listen]).contains("refused without http.admin_token"));
    assert!(told(&[("LITFLOW_HTTP__ADMIN_TOKEN", "hunter2")]).contains("no effect without http.admin_listen"));
    let two_words = told(&[listen, ("LITFLOW_HTTP__ADMIN_TOKEN", "hunter2 hunter3")]);
    assert!(two_words.contains("visible ASCII") && !two_words.contains("hunter2"), "{two_words}");
    assert!(load("", &[listen, ("LITFLOW_HTTP__ADMIN_TOKEN", "hunter2")], &[]).is_ok());
}

#[test]
fn an_object_stores_settings_keep_their_names() {
    let file = "[registry]\nstore = 's3://bucket/models'\n[registry.options]\naws_region = 'eu-west-1'\n";
    let variables = [("LITFLOW_REGISTRY__OPTIONS__AWS_SECRET_ACCESS_KEY", "hunter2")];
    let loaded = load(file, &variables, &[]).unwrap();
    let options = &loaded.config.registry.options;
    assert_eq!((options["aws_region"].as_str(), options["aws_secret_access_key"].as_str()), ("eu-west-1", "hunter2"));
    assert!(!Shown(&loaded).toml().contains("hunter2"));
    let problems = problems("[registry]\nstore = ''\n", &[], &[]);
    assert!(problems.len() == 1 && problems[0].key == "registry.store", "{problems:?}");
}

#[test]
fn properties_that_break_a_promise_are_refused() {
    let file = "[kafka]\ngroup_id = ''\n[kafka.consumer]\n'isolation.level' = 'read_uncommitted'\n'group.id' = 'x'\n\
                [kafka.properties]\n'sasl.username' = 'me'\n";
    let problems = problems(file, &[], &[]);
    let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
    assert_eq!(problems.len(), 4, "{told:#?}");
    assert!(told[0].contains("kafka.group_id") && told[0].contains(".toml:2): is empty"), "{told:#?}");
    assert!(told[1].contains("set kafka.group_id"), "{told:#?}");
    assert!(told[2].contains(".toml:4") && told[2].contains("aborted records"), "{told:#?}");
    assert!(told[3].contains("security.protocol is plaintext"), "{told:#?}");
}

#[test]
fn the_schema_registry_is_one_with_its_credentials() {
    let file = "[kafka.schema_registry]\nurl = 'http://localhost:8081'\nusername = 'ada'\n";
    let variables = [("LITFLOW_KAFKA__SCHEMA_REGISTRY__PASSWORD", "hunter2")];
    let loaded = load(file, &variables, &[]).unwrap();
    assert_eq!(loaded.config.kafka.schema_registry.password.as_deref(), Some("hunter2"));
    assert!(!Shown(&loaded).toml().contains("hunter2"));
    let variables = [("LITFLOW_KAFKA__SCHEMA_REGISTRY__TOKEN", "hunter2")];
    let told = problems(file, &variables, &[]).iter().map(Problem::to_string).collect::<String>();
    assert!(
        told.contains("kafka.schema_registry.token") && told.contains("LITFLOW_KAFKA__SCHEMA_REGISTRY__TOKEN"),
        "{told}"
    );
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn values_that_would_exhaust_the_process_are_refused() {
    let refused = |file: &str, key: &str| {
        let problems = problems(file, &[], &[]);
        assert_eq!((problems.len(), problems[0].key.as_str()), (1, key), "{problems:?}");
    };
    for value in ["1025", "1000000000"] {
        refused(&format!("[tagger]\nthreads = {value}\n"), "tagger.threads");
        refused(&format!("[tagger]\ntokenizer_threads = {value}\n"), "tagger.tokenizer_threads");
        refused(&format!("[articles]\nmax_xml_depth = {value}\n"), "articles.max_xml_depth");
    }
    refused("[tagger]\nmax_length = 3\n", "tagger.max_length");
    refused("[articles]\nmax_xml_depth = 0\n", "articles.max_xml_depth");
    refused("[articles]\nmax_passages = 1048577\n", "articles.max_passages");
    refused("[articles]\nmax_record_bytes = 0\n", "articles.max_record_bytes");
    refused("[kafka.properties]\n'' = 'x'\n", "kafka.properties.");
    let largest = "[tagger]\nthreads = 1024\nmax_length = 8\n[articles]\nmax_xml_depth = 1024\nmax_record_bytes = 1\n";
    assert!(load(largest, &[], &[]).is_ok());
}

/// The part of a documentation file after its marker is `generated`; UPDATE_GOLDEN=1 writes it.
pub(crate) fn assert_documented(file: &str, generated: &str) {
    const MARKER: &str = "<!-- what follows is written by `UPDATE_GOLDEN=1 cargo test --lib documentation` -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let (intro, found) = text.split_once(MARKER).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, format!("{intro}{MARKER}\n{generated}")).unwrap();
        return;
    }
    assert_eq!(
        found.trim(),
        generated.trim(),
        "{file} is not up to date; UPDATE_GOLDEN=1 cargo test --lib documentation"
    );
}

/// The default file as Markdown: a section a heading, a key a row.
fn reference() -> String {
    let mut text = String::new();
    let mut comment: Vec<&str> = Vec::new();
    let mut section = String::new();
    let mut in_table = false;
    for line in DEFAULT_TOML.lines().skip_while(|line| !line.is_empty()) {
        let line = line.trim_end();
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let is_key = |key: &str| key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if line.is_empty() {
            comment.clear();
        } else if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            text += &format!("\n## `[{section}]`\n\n{}\n", comment.join(" "));
            comment.clear();
            in_table = false;
        } else if let Some((key, value)) = bare.split_once(" = ").filter(|(key, _)| is_key(key)) {
            if !in_table {
                text += "\n| key | default | environment | meaning |\n|---|---|---|---|\n";
                in_table = true;
            }
            let default = if line.starts_with('#') { "not set".to_owned() } else { format!("`{value}`") };
            let variable = format!("LITFLOW_{}__{}", section.replace('.', "__").to_uppercase(), key.to_uppercase());
            text += &format!(
                "| `{key}` | {default} | `{variable}` | {} |\n",
                comment.join(" ").replace('|', "\\|").replace('<', "&lt;")
            );
            comment.clear();
        } else if let Some(more) = line.strip_prefix("# ").filter(|more| !more.starts_with('"')) {
            comment.push(more);
        }
    }
    text.trim_start().to_owned()
}

#[test]
fn the_documentation_is_the_default_file() {
    assert_documented("docs/configuration.md", &reference());
}
