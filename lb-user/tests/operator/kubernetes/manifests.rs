//! What `kubectl kustomize` makes of `deploy/kubernetes`, in the types that are made from Kubernetes' published schemas.

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Namespace, PodSpec},
};
use serde::{Deserialize as _, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{path::Path, process::Command};

use crate::stage::text;

#[derive(Default)]
pub(super) struct Manifests {
    pub(super) namespaces: Vec<Namespace>,
    pub(super) config_maps: Vec<ConfigMap>,
    pub(super) daemon_sets: Vec<DaemonSet>,
}

impl Manifests {
    pub(super) fn render() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes");
        let output = Command::new("kubectl")
            .arg("kustomize")
            .arg(folder)
            .output()
            .expect("kubectl is installed: `cargo xtask setup` does it");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let mut manifests = Self::default();
        for document in serde_yaml_ng::Deserializer::from_slice(&output.stdout) {
            let document = Value::deserialize(document).expect("YAML that is JSON, too");
            match document["kind"].as_str() {
                Some("Namespace") => manifests.namespaces.push(whole(&document)),
                Some("ConfigMap") => manifests.config_maps.push(whole(&document)),
                Some("DaemonSet") => manifests.daemon_sets.push(whole(&document)),
                other => panic!("there is no check of a {other:?}"),
            }
        }
        manifests
    }

    /// The pods of a daemon set.
    pub(super) fn pod(&self, name: &str) -> &PodSpec {
        let set = self.daemon_sets.iter().find(|set| set.metadata.name.as_deref() == Some(name));
        let template = &set.and_then(|set| set.spec.as_ref()).expect("such a daemon set").template;
        template.spec.as_ref().expect("pods")
    }

    /// A file of a config map.
    pub(super) fn config(&self, file: &str) -> &str {
        let mut files = self.config_maps.iter().filter_map(|map| map.data.as_ref()?.get(file));
        files.next().expect("such a file")
    }
}

/// As a type of Kubernetes' which has room for all of it: what it does not know would be lost on the way back.
fn whole<T: DeserializeOwned + Serialize>(document: &Value) -> T {
    let typed: T = T::deserialize(document).unwrap_or_else(|error| panic!("{error} in {document}"));
    let again = serde_json::to_value(&typed).expect("JSON");
    assert_eq!(&again, document, "a field that Kubernetes does not know");
    typed
}
