//! Repositories, and the distribution's own servers before them, on loopback.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A bare repository, and a work tree that is pushed from.
pub struct Repository {
    dir: PathBuf,
}

impl Repository {
    pub fn new(dir: &Path) -> Self {
        let repository = Self { dir: dir.join("git") };
        fs::create_dir_all(repository.work()).unwrap();
        fs::set_permissions(&repository.dir, fs::Permissions::from_mode(0o755)).unwrap();
        repository.git(&["init", "-q", "--bare", "-b", "main", repository.bare().to_str().unwrap()]);
        repository.git(&["init", "-q", "-b", "main"]);
        repository.git(&["remote", "add", "origin", repository.bare().to_str().unwrap()]);
        repository
    }

    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    pub fn bare(&self) -> PathBuf {
        self.dir.join("fleet.git")
    }

    /// git without the configuration of whoever runs the test.
    pub fn git(&self, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.current_dir(self.work()).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Ann").env(format!("GIT_{role}_EMAIL"), "ann@example.org");
        }
        let done = command.args(args).output().unwrap();
        assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// Commits what these files hold from now on, those without text being gone, and pushes that.
    pub fn push(&self, files: &[(&str, Option<&str>)]) -> String {
        for (path, text) in files {
            let path = self.work().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match text {
                Some(text) => fs::write(path, text).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", &format!("{} files", files.len())]);
        self.git(&["push", "-q", "--force", "origin", "HEAD:main"]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// A listening socket on loopback at a port that is free.
fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// lighttpd with git's own CGI program, TLS and a password, as an administrator sets it up.
pub struct Https {
    pub port: u16,
    pub authority: PathBuf,
    server: Child,
}

impl Https {
    pub const USER: &str = "host";
    pub const PASSWORD: &str = "correct-horse-battery";

    pub fn of(repository: &Repository) -> Self {
        let (listener, port) = listener();
        let dir = repository.dir.join("https");
        fs::create_dir(&dir).unwrap();
        let authority = certificates(&dir);
        fs::write(dir.join("users"), format!("{}:{}\n", Self::USER, Self::PASSWORD)).unwrap();
        let shown = dir.display();
        let backend = format!("{}/git-http-backend", repository.git(&["--exec-path"]));
        let config = format!(
            "server.modules = (\"mod_auth\", \"mod_authn_file\", \"mod_alias\", \"mod_setenv\", \"mod_cgi\", \"mod_openssl\")\n\
             server.document-root = \"{shown}\"\nserver.errorlog = \"{shown}/log\"\n\
             server.systemd-socket-activation = \"enable\"\n\
             server.port = {port}\nserver.bind = \"127.0.0.1\"\n\
             $SERVER[\"socket\"] == \"127.0.0.1:{port}\" {{\n  ssl.engine = \"enable\"\n  ssl.pemfile = \"{shown}/server.pem\"\n}}\n\
             alias.url = (\"/git\" => \"{backend}\")\ncgi.assign = (\"\" => \"\")\n\
             auth.backend = \"plain\"\nauth.backend.plain.userfile = \"{shown}/users\"\n\
             auth.require = (\"/git\" => (\"method\" => \"basic\", \"realm\" => \"git\", \"require\" => \"valid-user\"))\n\
             setenv.add-environment = (\"GIT_PROJECT_ROOT\" => \"{}\", \"GIT_HTTP_EXPORT_ALL\" => \"1\", \"GIT_CONFIG_GLOBAL\" => \"/dev/null\")\n",
            repository.dir.display()
        );
        fs::write(dir.join("config"), config).unwrap();
        // The socket is handed over as systemd does it: descriptor 3, meant for this process (sd_listen_fds(3)).
        let script = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "sh", "-c", script, "sh", "lighttpd", "-D", "-f"])
            .arg(dir.join("config"))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(OwnedFd::from(listener))
            .spawn()
            .unwrap();
        Self { port, authority, server }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}/git/fleet.git", self.port)
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

/// An authority and a server's certificate by it, as openssl makes them.
fn certificates(dir: &Path) -> PathBuf {
    let openssl = |args: &[&str]| {
        let done = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
        assert!(done.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=tests", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(&[&authority[..], &key].concat());
    openssl(&[&["req", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"][..], &key].concat());
    fs::write(dir.join("names"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-extfile",
        "names",
        "-out",
        "server.crt",
    ]);
    let both = [fs::read(dir.join("server.key")).unwrap(), fs::read(dir.join("server.crt")).unwrap()].concat();
    fs::write(dir.join("server.pem"), both).unwrap();
    dir.join("ca.pem")
}

/// Takes connections at a free port, and gives each to a program or to nobody.
pub struct Acceptor {
    pub port: u16,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    fn new(mut take: impl FnMut(TcpStream) + Send + 'static) -> Self {
        let (listener, port) = listener();
        let ends = Arc::new(AtomicBool::new(false));
        let ending = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ending.load(Ordering::Acquire) {
                    return;
                }
                take(stream.unwrap());
            }
        });
        Self { port, ends, thread: Some(thread) }
    }

    /// One that takes a request and never says a word.
    pub fn silent() -> Self {
        let mut held = Vec::new();
        Self::new(move |stream| held.push(stream))
    }

    /// One that answers everything with this.
    pub fn saying(answer: &'static [u8]) -> Self {
        use std::io::Write as _;
        Self::new(move |mut stream| {
            // Whoever asks may hang up at any time.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer);
        })
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        self.thread.take().unwrap().join().unwrap();
    }
}

/// OpenSSH's server, one process for each connection, as inetd would start it.
pub struct Ssh {
    pub acceptor: Acceptor,
    pub key: PathBuf,
    pub known_hosts: PathBuf,
}

impl Ssh {
    pub fn of(repository: &Repository) -> Self {
        let dir = repository.dir.join("ssh");
        fs::create_dir(&dir).unwrap();
        for name in ["host", "client"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
                .arg(dir.join(name))
                .status();
            assert!(made.unwrap().success());
        }
        // A key that may do nothing but this.
        let client = fs::read_to_string(dir.join("client.pub")).unwrap();
        let only = format!("restrict,command=\"git-upload-pack '{}'\" {client}", repository.bare().display());
        fs::write(dir.join("authorized_keys"), only).unwrap();
        let shown = dir.display();
        let config = format!(
            "HostKey {shown}/host\nAuthorizedKeysFile {shown}/authorized_keys\nStrictModes no\nUsePAM no\n\
             PermitRootLogin forced-commands-only\nPasswordAuthentication no\nPidFile none\n"
        );
        fs::write(dir.join("config"), config).unwrap();
        // Where the server goes between two rights, which its package makes at each boot.
        fs::create_dir_all("/run/sshd").unwrap();
        let path = dir.join("config");
        let acceptor = Acceptor::new(move |stream| {
            let (input, output) = (stream.try_clone().unwrap(), stream);
            let mut server = Command::new("/usr/sbin/sshd")
                .arg("-i")
                .arg("-f")
                .arg(&path)
                .stdin(OwnedFd::from(input))
                .stdout(OwnedFd::from(output))
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::spawn(move || server.wait());
        });
        let host = fs::read_to_string(dir.join("host.pub")).unwrap();
        let known_hosts = dir.join("known_hosts");
        fs::write(&known_hosts, format!("[127.0.0.1]:{} {host}", acceptor.port)).unwrap();
        Self { acceptor, key: dir.join("client"), known_hosts }
    }

    pub fn url(&self, repository: &Repository) -> String {
        format!("ssh://root@127.0.0.1:{}{}", self.acceptor.port, repository.bare().display())
    }
}
