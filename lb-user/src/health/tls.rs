//! TLS for HTTPS checks. Without a file of authorities any certificate is good: the check asks whether the server serves,
//! not who it is.

use super::Failure;
use crate::config::Trust;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

/// Shakes hands with a server that should be `host`.
pub(super) async fn wrap(stream: TcpStream, host: &str, trust: &Trust) -> Result<TlsStream<TcpStream>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Tls(error.to_string());
    let config = config(trust).map_err(|error| failed(&error))?;
    let name = ServerName::try_from(name(host).to_owned()).map_err(|error| failed(&error))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| failed(&error))
}

/// A host without its port and brackets.
fn name(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        return address;
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

fn config(trust: &Trust) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    Ok(match trust {
        Trust::Any => {
            config.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth()
        }
        Trust::SignedBy(authorities) => {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority.clone())?;
            }
            config.with_root_certificates(roots).with_no_client_auth()
        }
    })
}

/// Takes every certificate, but not a handshake that its holder has not signed.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::HttpRequest, health::http};
    use std::{net::SocketAddr, path::Path};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        task::JoinHandle,
    };
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{
            ServerConfig,
            pki_types::{PrivateKeyDer, pem::PemObject as _},
        },
    };

    fn file(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
    }

    /// A server with the certificate of `www.example.com`, that answers everything alike.
    async fn server() -> (SocketAddr, JoinHandle<()>) {
        let Trust::SignedBy(certificate) = Trust::load(&file("cert.pem")).expect("a certificate") else {
            panic!("a certificate")
        };
        let key = PrivateKeyDer::from_pem_file(file("key.pem")).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_no_client_auth()
            .with_single_cert(certificate, key)
            .expect("they belong together");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 1024];
                if stream.read(&mut request).await.is_ok() {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nwelcome").await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        (address, serving)
    }

    async fn ask(address: SocketAddr, host: &str, trust: &Trust) -> Result<(), Failure> {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let body = Some("come".to_owned());
        let request = HttpRequest { host: Some(host.to_owned()), path: "/".to_owned(), statuses: vec![200], body };
        http::ask(wrap(stream, host, trust).await?, host, &request).await
    }

    #[tokio::test]
    async fn a_certificate_matters_only_with_an_authority() {
        let (address, serving) = server().await;
        let own = Trust::load(&file("cert.pem")).expect("a certificate");
        let other = Trust::load(&file("other.pem")).expect("a certificate");
        for (host, trust) in [("www.example.com", &own), ("www.example.com", &Trust::Any), ("192.0.2.1", &Trust::Any)] {
            ask(address, host, trust).await.unwrap_or_else(|error| panic!("{host} {trust:?}: {error}"));
        }
        for (host, trust) in [("www.example.com", &other), ("www.example.org", &own)] {
            let error = ask(address, host, trust).await.expect_err("it is not who it should be").to_string();
            assert!(error.starts_with("no TLS: invalid peer certificate"), "{error}");
        }
        serving.abort();
    }

    #[test]
    fn a_host_is_a_name_without_its_port() {
        for (host, expected) in [
            ("www.example.com", "www.example.com"),
            ("www.example.com:8443", "www.example.com"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:8443", "2001:db8::1"),
        ] {
            assert_eq!(name(host), expected);
        }
    }
}
