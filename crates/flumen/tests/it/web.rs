//! A web server in the test's process, for one client at a time or many, that does as it is told: also what no server should.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A request: its first line, and its headers in lower case.
pub struct Request {
    /// How many came before it.
    pub number: usize,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The byte that `Range: bytes=N-` asks from.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// A server on a port of its own, which answers each connection with `answer`, and closes it then. The URL is that of a file.
pub fn serve(answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/trips.csv", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    let count = AtomicUsize::new(0);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let number = count.fetch_add(1, Ordering::SeqCst);
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                let headers = BufReader::new(&stream)
                    .lines()
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .filter_map(|line| line.split_once(':').map(|(n, v)| (n.to_lowercase(), v.trim().to_owned())))
                    .collect();
                answer(&Request { number, headers }, &mut stream);
            });
        }
    });
    url
}

/// Writes what the client may have no ears for any more.
pub fn send(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) {
    let _ = stream.write_all(bytes.as_ref()).and_then(|()| stream.flush());
}

/// Sends a status, headers and a body of `length` bytes, of which `body` may be only the first.
pub fn reply(stream: &mut TcpStream, status: &str, headers: &str, length: usize, body: &[u8]) {
    send(stream, format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"));
    send(stream, body);
}

/// Holds the connection, silent, until the client is gone.
pub fn hold(stream: &mut TcpStream) {
    let _ = std::io::copy(stream, &mut std::io::sink());
}

/// Ends the connection as one does whose process died: with a reset.
pub fn reset(stream: &TcpStream) {
    // What has not been read when a socket is closed makes the system send a reset; without it, this is a plain end, which
    // comes as early.
    let _ = stream.shutdown(std::net::Shutdown::Both);
}
