//! What every AWS SDK client of ours is made with.

use std::sync::{Arc, OnceLock};

use aws_smithy_http_client::tls;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

/// An HTTP client that sets up TLS (milliseconds, and 150 certificates in memory) at the first `https` request only:
/// the container endpoint and the instance's are plain `http`.
#[derive(Debug)]
pub(crate) struct LazyTls {
    plain: SharedHttpClient,
    tls: Arc<OnceLock<SharedHttpClient>>,
}

impl Default for LazyTls {
    fn default() -> Self {
        Self { plain: aws_smithy_http_client::Builder::new().build_http(), tls: Arc::default() }
    }
}

impl HttpClient for LazyTls {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(LazyConnector {
            plain: self.plain.http_connector(settings, components),
            tls: Arc::clone(&self.tls),
            settings: settings.clone(),
            components: components.clone(),
        })
    }
}

#[derive(Debug)]
struct LazyConnector {
    plain: SharedHttpConnector,
    tls: Arc<OnceLock<SharedHttpClient>>,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for LazyConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if !request.uri().starts_with("https:") {
            return self.plain.call(request);
        }
        let client = self.tls.get_or_init(|| {
            aws_smithy_http_client::Builder::new()
                .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
                .build_https()
        });
        client.http_connector(&self.settings, &self.components).call(request)
    }
}
