//! Asks a program that listens on this machine.

#![allow(dead_code)] // each test binary uses its part

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// The answer to a request; nothing while nobody listens.
pub fn request(port: u16, method: &str, path: &str) -> Option<String> {
    request_with(port, method, path, "")
}

/// The same with more header lines.
pub fn request_with(port: u16, method: &str, path: &str, headers: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}{headers}Connection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
