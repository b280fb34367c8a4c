//! Waiting until something holds.

use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use regex::Regex;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{NextTimeout, TcpConnector};

use super::act::{Actuator, ended_badly};
use crate::change::{HttpAnswer, Wait, WaitFor};
use crate::graph::Node;
use crate::world::process::{self, Job};
use crate::world::{Entry, Host, System};

/// A look at what is waited for takes no longer than that.
const LONGEST_LOOK: Duration = Duration::from_secs(60);
/// Even the last look gets so long.
const SHORTEST_LOOK: Duration = Duration::from_secs(1);
/// Most bytes of an answer that are looked at.
const BODY_LIMIT: u64 = 1 << 20;
/// A stopped run ends a wait after so long.
const PAUSE: Duration = Duration::from_millis(200);

impl Actuator<'_> {
    pub(super) fn wait(&self, node: &Node, wait: &Wait) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_millis(wait.within);
        let every = Duration::from_millis(wait.every);
        let mut successes = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let looked = self.holds(node, &wait.until, left.max(SHORTEST_LOOK));
            successes = if looked.is_ok() { successes + 1 } else { 0 };
            if successes >= wait.successes {
                break;
            }
            let stopped = self.is_stopped();
            if stopped || Instant::now() + every > deadline {
                let seconds = Duration::from_millis(wait.within).as_secs_f32();
                let reason = match looked {
                    Err(reason) => reason,
                    Ok(()) => format!("it held {successes} times in a row at last"),
                };
                return Err(format!("it did not come true within {seconds} s: {reason}"));
            }
            self.rest(every);
        }
        let begun = Instant::now();
        let soak = Duration::from_millis(wait.soak);
        while begun.elapsed() < soak {
            if self.is_stopped() {
                return Err(String::from("the run was stopped before it had held long enough"));
            }
            self.rest(every.min(soak.saturating_sub(begun.elapsed())));
            self.holds(node, &wait.until, LONGEST_LOOK).map_err(|reason| {
                let (held, soak) = (begun.elapsed().as_secs_f32(), soak.as_secs_f32());
                format!("it held for {held:.1} s only, and not for {soak} s: {reason}")
            })?;
        }
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Lets so long pass, unless the run is stopped.
    fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(PAUSE));
        }
    }

    /// Looks once, for so long at most.
    fn holds(&self, node: &Node, condition: &WaitFor, left: Duration) -> Result<(), String> {
        let left = left.min(LONGEST_LOOK);
        match condition {
            WaitFor::Port(address) => self.connect(address, left).map(drop),
            WaitFor::Path(path) => match self.host.entry(path) {
                Ok(Entry::Absent) => Err(format!("{path} does not exist")),
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
            WaitFor::Http(http) => answers(http, left),
            WaitFor::Command(line) => {
                let job = Job {
                    argv: vec!["/bin/sh".into(), "-c".into(), line.clone()],
                    environment: self.environment(node)?,
                    timeout: Some(left),
                    ..Job::default()
                };
                let answer =
                    process::run(&job, &self.identity(node)?).map_err(|error| error.to_string())?;
                if answer.code == 0 { Ok(()) } else { Err(ended_badly("the command", &answer)) }
            }
        }
    }

    fn connect(&self, address: &str, left: Duration) -> Result<TcpStream, String> {
        let mut last = format!("{address} is no address");
        for address in self.host.addresses(address).map_err(|error| error.to_string())? {
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }
}

/// Asks an `http://` address once.
fn answers(http: &HttpAnswer, left: Duration) -> Result<(), String> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(left))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent("converge")
        .build();
    let agent = ureq::Agent::with_parts(config, TcpConnector::default(), HostNames);
    let mut response = agent.get(&http.address).call().map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let fine = if http.status.is_empty() { status < 400 } else { http.status.contains(&status) };
    if !fine {
        return Err(format!("the answer was {status}"));
    }
    for (name, pattern) in &http.header {
        let values = response.headers().get_all(name.as_str()).iter();
        let values: Vec<String> =
            values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
        if !values.iter().any(|value| pattern.is_match(value)) {
            return Err(match values.first() {
                Some(value) => format!("the answer's header `{name}` is `{value}`"),
                None => format!("the answer has no header `{name}`"),
            });
        }
    }
    if let Some(pattern) = &http.body {
        let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
        let body = response.body_mut().as_reader();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(body, BODY_LIMIT), &mut bytes)
            .map_err(|error| error.to_string())?;
        if !pattern.is_match(&String::from_utf8_lossy(&bytes)) {
            return Err(format!("the answer's body does not match `{pattern}`"));
        }
    }
    Ok(())
}

/// Asks the host for the addresses of names.
#[derive(Debug)]
struct HostNames;

impl Resolver for HostNames {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let name = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(80);
        let found = Host::default().addresses(&format!("{name}:{port}"));
        let found = found.map_err(|_| ureq::Error::HostNotFound)?;
        let mut addresses = self.empty();
        // More than that ureq does not take.
        found.into_iter().take(16).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers once, with these bytes.
    fn server(bytes: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/healthz", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).unwrap() > 0);
            // Who asks may have seen enough before its end.
            let _ = stream.write_all(bytes.as_bytes());
        });
        address
    }

    #[test]
    fn answers_are_what_was_asked_for() {
        let page = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Release: 42\r\n\r\nhello";
        let moved =
            "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n";
        let broken = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
        for (bytes, status, body, header, expected) in [
            (page, &[][..], None, None, None),
            (page, &[200], Some("^hel+o$"), Some(("x-release", "^42$")), None),
            (page, &[204], None, None, Some("the answer was 200")),
            (page, &[], Some("bye"), None, Some("the answer's body does not match `bye`")),
            (page, &[], None, Some(("x-release", "43")), Some("`x-release` is `42`")),
            (page, &[], None, Some(("x-other", "")), Some("has no header `x-other`")),
            (moved, &[], None, None, None),
            (broken, &[], None, None, Some("the answer was 503")),
            (broken, &[503], None, None, None),
            ("SSH-2.0-OpenSSH\r\n", &[], None, None, Some("")),
        ] {
            let http = HttpAnswer {
                address: server(bytes),
                status: status.to_vec(),
                body: body.map(str::to_owned),
                header: header
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.to_string()))
                    .collect(),
            };
            let found = answers(&http, Duration::from_secs(10));
            match expected {
                None => assert_eq!(found, Ok(()), "{bytes}"),
                Some(words) => {
                    assert!(found.as_ref().is_err_and(|error| error.contains(words)), "{found:?}")
                }
            }
        }
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let http = HttpAnswer {
            address: format!("http://{}/", silent.local_addr().unwrap()),
            status: Vec::new(),
            body: None,
            header: Vec::new(),
        };
        assert!(answers(&http, Duration::from_millis(200)).is_err());
    }
}
