//! Keys and certificates, made as an operator makes them: with `openssl`, or with Open vSwitch's `ovs-pki`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A CA with its files.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    name: String,
}

/// A private key, its certificate, and the certificate of the CA that its owner trusts: paths of PEM files.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    /// The private key.
    pub private_key: String,
    /// Its certificate.
    pub certificate: String,
    /// The CA's certificate.
    pub ca_cert: String,
}

impl Authority {
    /// Makes a CA whose files, and those of whom it signs, lie in `dir`.
    pub fn new(dir: &Path, name: &str) -> Self {
        let authority = Self { dir: dir.to_owned(), name: name.to_owned() };
        let (key, certificate) = (authority.path(name, "key"), authority.certificate());
        let subject = format!("/CN={name}");
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "10"]);
        succeed(openssl.args(["-subj", &subject, "-keyout", &key, "-out", &certificate]));
        authority
    }

    /// The path of the CA's own certificate.
    pub fn certificate(&self) -> String {
        self.path(&self.name, "pem")
    }

    /// Makes a key and signs its certificate, which is valid for so many days, for somebody who trusts this CA.
    pub fn sign(&self, name: &str, days: i32) -> KeyFiles {
        let [key, request, certificate, extensions] = ["key", "csr", "pem", "ext"].map(|kind| self.path(name, kind));
        // With any extension at all, the certificate is of X.509 version 3.
        std::fs::write(&extensions, "basicConstraints=CA:false\n").expect("the test's directory takes files");
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", &format!("/CN={name}")]);
        succeed(openssl.args(["-keyout", &key, "-out", &request]));
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-req", "-in", &request, "-CA", &self.certificate(), "-CAkey", &self.path(&self.name, "key")]);
        succeed(openssl.args(["-CAcreateserial", "-days", &days.to_string(), "-extfile", &extensions, "-out", &certificate]));
        KeyFiles { private_key: key, certificate, ca_cert: self.certificate() }
    }

    fn path(&self, name: &str, kind: &str) -> String {
        self.dir.join(format!("{name}.{kind}")).to_str().expect("temporary directories have plain names").to_owned()
    }
}

impl KeyFiles {
    /// As options of `vswitch run` and of Open vSwitch's tools.
    pub fn options(&self) -> [&str; 6] {
        ["--private-key", &self.private_key, "--certificate", &self.certificate, "--ca-cert", &self.ca_cert]
    }
}

/// What `ovs-pki` makes in `dir`: files for a switch, which trusts controllers, and for a controller, which trusts switches.
pub fn ovs_pki(dir: &Path) -> [KeyFiles; 2] {
    let pki = dir.join("pki");
    let run = |args: &[&str]| {
        let mut command = Command::new("ovs-pki");
        command.arg(format!("--dir={}", pki.display())).arg(format!("--log={}", dir.join("ovs-pki.log").display()));
        // Smaller keys would do for a test, but this is what it makes.
        succeed(command.args(args).current_dir(dir));
    };
    run(&["init"]);
    run(&["req+sign", "sw", "switch"]);
    run(&["req+sign", "ctl", "controller"]);
    let path = |name: String| dir.join(name).to_str().expect("temporary directories have plain names").to_owned();
    [("sw", "controllerca"), ("ctl", "switchca")].map(|(name, trusted)| KeyFiles {
        private_key: path(format!("{name}-privkey.pem")),
        certificate: path(format!("{name}-cert.pem")),
        ca_cert: path(format!("pki/{trusted}/cacert.pem")),
    })
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start ({error}): run scripts/setup"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
