//! A client of the cluster that the environment names.

mod renewal;

use futures::FutureExt;
use http::Uri;
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    client::{Body, ConfigExt},
    config::{InClusterError, KubeConfigOptions, KubeconfigError},
};
use tower::{BoxError, ServiceBuilder};

use crate::wording;

/// The client, or why there is none. It goes by what the files say while it is used, not only by what they said at first.
///
/// # Errors
/// What was found in place of a usable cluster, in words.
pub async fn client() -> Result<kube::Client, String> {
    let config = config().await?;
    let server = config.cluster_url.clone();
    let first = open(config).await?;
    Ok(renewal::renewing(first, Box::new(move || again(server.clone()).boxed())))
}

/// A client of the same cluster. In another one no pod would be found, and all of them be taken for gone.
async fn again(server: Uri) -> Result<kube::Client, String> {
    let config = config().await?;
    if config.cluster_url != server {
        let other = config.cluster_url;
        return Err(format!("the kubeconfig names another API server now, {other}; restart podherald to watch that"));
    }
    open(config).await
}

async fn open(mut config: kube::Config) -> Result<kube::Client, String> {
    // One backoff only, ours: kube's own would hide a 429 for minutes.
    config.default_retry = false;
    trim_token(&mut config);
    // A plugin may have to be run for the credentials.
    let connected = tokio::task::spawn_blocking(|| connect(config)).await;
    connected.expect("connecting does not panic").map_err(|error| wording::of(&error))
}

/// kube puts a token file into a header as it is, and an editor's newline at its end is none of the token. Such a token is
/// renewed when it is refused.
fn trim_token(config: &mut kube::Config) {
    let auth = &mut config.auth_info;
    let Some(text) = auth.token_file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()) else { return };
    if auth.token.is_none() && text.trim() != text {
        auth.token = Some(text.trim().into());
    }
}

/// As kubectl has it: the kubeconfig, else the pod's service account. Where there is neither, says why.
async fn config() -> Result<kube::Config, String> {
    let kubeconfig = match kube::Config::from_kubeconfig(&KubeConfigOptions::default()).await {
        Ok(config) => return Ok(config),
        Err(KubeconfigError::ReadConfig(error, path)) => format!("{} cannot be read: {error}", path.display()),
        Err(error) => wording::of(&error),
    };
    match kube::Config::incluster() {
        Ok(config) => Ok(config),
        // Not in a pod.
        Err(InClusterError::ReadEnvironmentVariable(_)) => Err(kubeconfig),
        Err(error) => Err(format!("{kubeconfig}, and of the pod: {}", wording::of(&error))),
    }
}

/// kube's own client, but for `TCP_NODELAY`: on a new connection the request follows the last words of the TLS handshake, and
/// would wait for their acknowledgement, which a server at rest delays by 40 ms. That is what each log costs that does not
/// find an idle connection.
fn connect(config: kube::Config) -> kube::Result<kube::Client> {
    // Both are kube's own business: it knows proxies, and renews what a plugin issued.
    if config.proxy_url.is_some() || config.auth_info.exec.is_some() {
        return kube::Client::try_from(config);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false); // what is in TLS is none of its business
    tcp.set_nodelay(true);
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client);
    Ok(kube::Client::new(service, config.default_namespace))
}
