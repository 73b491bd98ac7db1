//! What the admin socket answers: one table of routes, from which the schema is made too. A handler says what it does, and
//! never how it is asked for.

use super::{
    backends,
    entries::{self, Flows, Tokens},
    explain::{self, ExplainAnswer, ExplainRequest},
    fault::Fault,
    reload::{self, Reload},
    status::Status,
    trace, withdraw,
};
use crate::{fitness::Fitness, service::Service};
use hyper::{Method, body::Bytes};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use std::{collections::BTreeMap, future::Future, pin::Pin, str::FromStr, sync::Arc};
use tokio::{sync::mpsc, task::spawn_blocking};

/// What handlers may reach.
#[derive(Clone)]
pub struct Context {
    /// The running balancer.
    pub service: Arc<Service>,
    /// The way to whoever reloads its configuration.
    pub reloads: reload::Requests,
    /// What `/healthz` says of it.
    pub fitness: Fitness,
}

/// A request that a route was found for.
#[derive(Clone, Debug, Default)]
pub struct Call {
    names: BTreeMap<&'static str, String>,
    query: BTreeMap<&'static str, String>,
    /// What was sent with it.
    pub body: Bytes,
}

/// What is answered.
#[derive(Debug)]
pub enum Reply {
    /// A JSON document.
    Document(Vec<u8>),
    /// JSON documents, each a line, as they come.
    Lines(mpsc::Receiver<Bytes>),
}

/// A reply, or why there is none.
pub type Answer = Pin<Box<dyn Future<Output = Result<Reply, Fault>> + Send>>;

/// Something that the admin socket can be asked.
pub struct Route {
    /// How.
    pub method: Method,
    /// Under which path; a part in braces is a name.
    pub path: &'static str,
    /// What for, in a sentence.
    pub about: &'static str,
    /// With which parameters behind a `?`.
    pub query: &'static [Parameter],
    /// The type of what is to be sent with it, if anything is.
    pub body: Option<TypeOf>,
    /// The type of the answer.
    pub answer: TypeOf,
    /// Who answers.
    pub handler: fn(Context, Call) -> Answer,
}

/// A schema of a type, as the routes name it.
pub type TypeOf = fn(&mut SchemaGenerator) -> Schema;

/// A parameter of a route.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Its type, in JSON Schema's words.
    pub kind: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
}

/// Everything that can be asked.
pub static ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "/v1/status",
        about: "What the running balancer does.",
        query: &[],
        body: None,
        answer: type_of::<Status>,
        handler: |context, _| blocking(move || Ok(context.service.status()?)),
    },
    backends::LIST,
    backends::SHOW,
    backends::DRAIN,
    backends::ENABLE,
    Route {
        method: Method::POST,
        path: "/v1/reload",
        about: "Read the configuration again; one that does not hold changes nothing.",
        query: &[Parameter {
            name: "dry_run",
            kind: "boolean",
            about: "Change nothing, and say what would be changed.",
        }],
        body: None,
        answer: type_of::<Reload>,
        handler: reload::handle,
    },
    Route {
        method: Method::GET,
        path: "/v1/flows",
        about: "The flows that have an entry: counts by table and backend, and samples.",
        query: entries::SAMPLE,
        body: None,
        answer: type_of::<Flows>,
        handler: entries::flows,
    },
    Route {
        method: Method::GET,
        path: "/v1/tokens",
        about: "The tokens that are known: counts by backend, and samples.",
        query: entries::SAMPLE,
        body: None,
        answer: type_of::<Tokens>,
        handler: entries::tokens,
    },
    Route {
        method: Method::POST,
        path: "/v1/explain",
        about: "What the running balancer would do with frames, and why. It changes nothing.",
        query: &[],
        body: Some(type_of::<ExplainRequest>),
        answer: type_of::<ExplainAnswer>,
        handler: explain::answer,
    },
    trace::TRACE,
    withdraw::DRAIN,
    withdraw::ENABLE,
];

/// The schema of a type.
pub fn type_of<T: JsonSchema>(types: &mut SchemaGenerator) -> Schema {
    types.subschema_for::<T>()
}

/// An answer that is computed where it may take its time.
pub fn blocking<T: Serialize>(compute: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Answer {
    Box::pin(async move { spawn_blocking(move || Ok(Reply::Document(serde_json::to_vec(&compute()?)?))).await? })
}

impl Call {
    /// A name in the path.
    ///
    /// # Panics
    /// If the route has no such part.
    pub fn name(&self, part: &str) -> &str {
        &self.names[part]
    }

    /// A parameter's value, if it was given.
    ///
    /// # Errors
    /// It is not of this type.
    pub fn parameter<T: FromStr>(&self, name: &str) -> Result<Option<T>, Fault> {
        let Some(value) = self.query.get(name) else { return Ok(None) };
        match value.parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => Err(Fault::bad_request(format!("`{value}` is no value for `{name}`"))),
        }
    }
}

/// The route of a request, and what the request fills in.
///
/// # Errors
/// There is none, or none with this method, or it has no such parameter.
pub fn find(
    routes: &'static [Route],
    method: &Method,
    path: &str,
    query: &str,
) -> Result<(&'static Route, Call), Fault> {
    let matching: Vec<_> =
        routes.iter().filter_map(|route| names(route.path, path).map(|names| (route, names))).collect();
    if matching.is_empty() {
        let known: Vec<_> = routes.iter().map(|route| route.path).collect();
        return Err(Fault::not_found(format!("there is no {path} here; there is {}", known.join(", "))));
    }
    let methods: Vec<_> = matching.iter().map(|(route, _)| route.method.clone()).collect();
    let found = matching.into_iter().find(|(route, _)| route.method == *method);
    let (route, names) = found.ok_or_else(|| Fault::method(path, methods))?;
    Ok((route, Call { names, query: parameters(route, query)?, ..Call::default() }))
}

/// The names in a path, if it is one of a route's.
fn names(route: &'static str, path: &str) -> Option<BTreeMap<&'static str, String>> {
    let (pattern, parts): (Vec<_>, Vec<_>) = (route.split('/').collect(), path.split('/').collect());
    if pattern.len() != parts.len() {
        return None;
    }
    let mut names = BTreeMap::new();
    for (part, found) in pattern.into_iter().zip(parts) {
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) if !found.is_empty() => {
                names.insert(name, found.to_owned());
            }
            _ if part == found => {}
            _ => return None,
        }
    }
    Some(names)
}

/// The parameters of a query. No value of Weir's has a character that would have to be escaped.
fn parameters(route: &'static Route, query: &str) -> Result<BTreeMap<&'static str, String>, Fault> {
    let mut parameters = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
        let Some(parameter) = route.query.iter().find(|parameter| parameter.name == name) else {
            return Err(Fault::bad_request(format!("{} has no parameter `{name}`", route.path)));
        };
        parameters.insert(parameter.name, value.to_owned());
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;

    static SOME: &[Route] = &[route(Method::GET, "/v1/things"), route(Method::POST, "/v1/things/{name}/turn")];

    const fn route(method: Method, path: &'static str) -> Route {
        Route {
            method,
            path,
            about: "",
            query: &[Parameter { name: "fast", kind: "boolean", about: "" }],
            body: None,
            answer: type_of::<Status>,
            handler: |_, _| Box::pin(async { Ok(Reply::Document(Vec::new())) }),
        }
    }

    fn fault(method: &Method, path: &str, query: &str) -> Fault {
        find(SOME, method, path, query).err().unwrap_or_else(|| panic!("{method} {path}?{query} is answered"))
    }

    #[test]
    fn a_path_names_things() {
        let Ok((route, call)) = find(SOME, &Method::POST, "/v1/things/web-1.a/turn", "fast") else { panic!("found") };
        assert_eq!((route.path, call.name("name")), ("/v1/things/{name}/turn", "web-1.a"));
        assert_eq!(call.parameter("fast").ok(), Some(Some(true)));
        let Ok((_, call)) = find(SOME, &Method::GET, "/v1/things", "") else { panic!("found") };
        assert_eq!(call.parameter::<bool>("fast").ok(), Some(None));
    }

    #[test]
    fn what_is_not_there_is_told() {
        for path in ["/", "/v1/things/", "/v1/things//turn", "/v1/things/a/turn/b", "/v1"] {
            let fault = fault(&Method::GET, path, "");
            assert_eq!(fault.status, StatusCode::NOT_FOUND);
            assert!(fault.message.ends_with("there is /v1/things, /v1/things/{name}/turn"), "{}", fault.message);
        }
        let wrong = fault(&Method::POST, "/v1/things", "");
        assert_eq!((wrong.status, wrong.allow), (StatusCode::METHOD_NOT_ALLOWED, vec![Method::GET]));
        let unknown = fault(&Method::GET, "/v1/things", "slow=1");
        assert_eq!(
            (unknown.status, &*unknown.message),
            (StatusCode::BAD_REQUEST, "/v1/things has no parameter `slow`")
        );
        let Ok((_, call)) = find(SOME, &Method::GET, "/v1/things", "fast=very") else { panic!("found") };
        assert!(call.parameter::<bool>("fast").is_err());
    }
}
