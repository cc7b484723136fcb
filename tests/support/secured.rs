//! A broker that asks who one is: TLS, passwords, and rights for everything.

use crate::support::Cluster;
use litflow::bus::Options;
use litflow::bus::broker::LocalOptions;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The password of every user.
pub const PASSWORD: &str = "hunter2-of-all-users";

/// The cluster's own listener, without TLS, is that of the administrator, who may do everything.
pub struct Secured {
    pub cluster: Cluster,
    /// TLS and a password.
    pub sasl: u16,
    /// TLS and a client certificate.
    pub tls: u16,
    /// TLS, but the broker's certificate has expired.
    pub expired: u16,
    folder: TempDir,
}

impl Secured {
    /// Starts it with users of these names; none, with a note, where there is no Java or no Kafka.
    pub fn start(users: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("litflow's tests");
        authority.write(&folder.path().join("ca.pem"));
        Authority::new("somebody else").write(&folder.path().join("other-ca.pem"));
        authority.sign("broker", 2099).write(folder.path(), "broker");
        authority.sign("broker", 2020).write(folder.path(), "expired");
        authority.sign("reader", 2099).write(folder.path(), "client");

        let held: Vec<TcpListener> = (0..5).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let &[admin, controller, sasl, tls, expired] = ports.as_slice() else { unreachable!("five were bound") };
        drop(held);
        let options = LocalOptions {
            port: Some(admin),
            properties: properties(folder.path(), users, [admin, controller, sasl, tls, expired]),
            format: users.iter().flat_map(|user| scram(user)).collect(),
            ..LocalOptions::default()
        };
        let cluster = Cluster::start_with(&options)?;
        Some(Self { cluster, sasl, tls, expired, folder })
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How a user reaches the cluster by his password.
    pub fn user(&self, name: &str, mechanism: &str) -> Options {
        let properties = [
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", mechanism),
            ("sasl.username", name),
            ("sasl.password", PASSWORD),
        ];
        self.at(self.sasl, &properties)
    }

    /// Any way over TLS.
    pub fn at(&self, port: u16, properties: &[(&str, &str)]) -> Options {
        let mut all = BTreeMap::from([("ssl.ca.location".to_owned(), self.file("ca.pem").display().to_string())]);
        all.extend(properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        Options { bootstrap_servers: format!("127.0.0.1:{port}"), properties: all, ..Options::default() }
    }
}

fn scram(user: &str) -> [String; 4] {
    let of = |mechanism: &str| format!("{mechanism}=[name={user},password={PASSWORD}]");
    ["--add-scram".into(), of("SCRAM-SHA-256"), "--add-scram".into(), of("SCRAM-SHA-512")]
}

fn properties(folder: &Path, users: &[&str], ports: [u16; 5]) -> Vec<(String, String)> {
    let [admin, controller, sasl, tls, expired] = ports;
    let listeners = format!(
        "PLAINTEXT://127.0.0.1:{admin},SASL_SSL://127.0.0.1:{sasl},SSL://127.0.0.1:{tls},EXPIRED://127.0.0.1:{expired}"
    );
    let plain_users: Vec<String> = users.iter().map(|user| format!("user_{user}=\"{PASSWORD}\"")).collect();
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let file = |name: &str| folder.join(name).display().to_string();
    let mut properties = vec![
        ("controller.quorum.voters", format!("1@127.0.0.1:{controller}")),
        ("listeners", format!("{listeners},CONTROLLER://127.0.0.1:{controller}")),
        ("advertised.listeners", listeners),
        (
            "listener.security.protocol.map",
            "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL,EXPIRED:SSL".into(),
        ),
        ("ssl.truststore.type", "PEM".into()),
        ("ssl.truststore.location", file("ca.pem")),
        ("ssl.keystore.type", "PEM".into()),
        ("ssl.keystore.location", file("broker.pem")),
        ("listener.name.ssl.ssl.client.auth", "required".into()),
        ("listener.name.expired.ssl.keystore.type", "PEM".into()),
        ("listener.name.expired.ssl.keystore.location", file("expired.pem")),
        ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".into()),
        ("listener.name.sasl_ssl.plain.sasl.jaas.config", format!("{plain} {};", plain_users.join(" "))),
        ("listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config", scram.into()),
        ("listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config", scram.into()),
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer".into()),
        ("allow.everyone.if.no.acl.found", "false".into()),
        ("super.users", "User:ANONYMOUS".into()),
    ];
    // A refused login is answered at once.
    properties.push(("connection.failed.authentication.delay.ms", "0".into()));
    properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Who signs certificates.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

struct Signed {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = named(name, Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn write(&self, path: &Path) {
        fs::write(path, &self.certificate).unwrap();
    }

    /// A certificate for this host that ends with a year.
    fn sign(&self, name: &str, year: i32) -> Signed {
        let mut params = named(name, vec!["127.0.0.1".into()]);
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Signed { certificate, key: key.serialize_pem() }
    }
}

fn named(name: &str, hosts: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Signed {
    /// Key and certificate in a file, as Kafka reads them, and each in one of its own, as librdkafka does.
    fn write(&self, folder: &Path, name: &str) {
        fs::write(folder.join(format!("{name}.pem")), format!("{}{}", self.key, self.certificate)).unwrap();
        fs::write(folder.join(format!("{name}.crt")), &self.certificate).unwrap();
        fs::write(folder.join(format!("{name}.key")), &self.key).unwrap();
    }
}
