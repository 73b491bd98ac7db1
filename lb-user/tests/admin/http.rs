//! HTTP over the socket, in so many words.

use crate::stage::DEADLINE;
use lb_user::admin::schema;
use serde_json::Value;
use std::{
    io::{Read, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

/// An answer: status, `Allow`, and JSON.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) allow: Option<String>,
    pub(crate) body: Value,
}

pub(crate) fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Answer {
    answer(send(socket, method, path, body), &format!("{method} {path}"))
}

/// Asks, and leaves the answer in the connection.
pub(crate) fn send(socket: &Path, method: &str, path: &str, body: &str) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
    stream.set_read_timeout(Some(DEADLINE)).expect("a time");
    let len = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: weir\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    )
    .expect("it listens");
    stream
}

/// The answer to what was asked.
pub(crate) fn answer(mut stream: impl Read, asked: &str) -> Answer {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_else(|error| panic!("{asked}: {error}"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{asked}: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let find = |name: &str| {
        fields.clone().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    assert_eq!(find("content-type").as_deref(), Some("application/json"), "{asked}");
    let allow = find("allow");
    Answer { status, allow, body: serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")) }
}

/// Asks as the schema says, and holds the answer against it.
pub(crate) fn ask_by_schema(socket: &Path, method: &str, path: &str, query: &str, body: &str) -> Value {
    let answer = ask(socket, method, &format!("{path}{query}"), body);
    assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
    judge(method, path, "200", &answer.body);
    answer.body
}

/// Holds an answer against the schema.
pub(crate) fn judge(method: &str, path: &str, status: &str, body: &Value) {
    let document = schema::document();
    let operation = &document["paths"][path][method.to_lowercase()];
    let schema = &operation["responses"][status]["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "the schema has {method} {path}");
    let validator = jsonschema::validator_for(&crate::schema::within(&document, schema)).expect("a schema");
    let errors: Vec<_> = validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path)).collect();
    assert!(errors.is_empty(), "{method} {path}: {errors:?}\n{body:#}");
}
