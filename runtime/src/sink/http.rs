//! Prometheus over HTTP: `/metrics` and `/healthz`.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::outcome::expose::{self, Exposition};

/// Connections at once: a scraper needs one.
const MAX_CONNECTIONS: usize = 32;
/// How long a client may take to say what it wants, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why metrics are not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Someone else listens there.
    #[error(
        "cannot serve metrics on {0}: another program listens there (`ss -ltnp sport = :{port}` says which); \
         choose another address with --metrics ADDRESS:PORT or `listen` in [metrics], or `off`",
        port = .0.port()
    )]
    Busy(SocketAddr),
    /// The kernel says no.
    #[error(
        "cannot serve metrics on {address}: {error}; choose another address with --metrics ADDRESS:PORT or `listen` in [metrics]"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What it says.
        error: io::Error,
    },
}

/// A server that is bound and not serving yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the address. The configuration has checked that it is a loopback address, or that
    /// another one is meant.
    pub async fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let fails = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => ServeError::Busy(address),
            _ => ServeError::Bind { address, error },
        };
        let listener = TcpListener::bind(address).await.map_err(fails)?;
        let address = listener.local_addr().map_err(fails)?;
        Ok(Self { listener, address })
    }

    /// Where it listens; the port is the real one if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`. `/healthz` says ok while `ready` is set.
    pub async fn serve(
        self,
        metrics: Arc<Exposition>,
        ready: Arc<AtomicBool>,
        stop: impl Future<Output = ()>,
    ) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut stop = pin!(stop);
        loop {
            let accepted = async {
                let permit = Arc::clone(&connections).acquire_owned().await;
                (permit, self.listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                accepted = accepted => accepted,
                () = &mut stop => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, for example: trying again at once would only burn time.
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let (metrics, ready) = (Arc::clone(&metrics), Arc::clone(&ready));
            tokio::spawn(async move {
                let answer = service_fn(|request| {
                    let (metrics, ready) = (Arc::clone(&metrics), ready.load(Ordering::Relaxed));
                    async move { Ok::<_, Infallible>(answer(&request, metrics, ready).await) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), answer);
                // A client that goes away is its own business.
                let _gone = tokio::time::timeout(2 * PATIENCE, connection).await;
                drop(permit);
            });
        }
    }
}

async fn answer(
    request: &Request<Incoming>,
    metrics: Arc<Exposition>,
    ready: bool,
) -> Response<Full<Bytes>> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    let broken = |error: &dyn std::error::Error| {
        response(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n"))
    };
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        // 2 us for each series: on a thread that nobody waits for.
        "/metrics" => match tokio::task::spawn_blocking(move || metrics.text()).await {
            Ok(Ok(text)) => response(StatusCode::OK, expose::CONTENT_TYPE, text),
            Ok(Err(error)) => broken(&error),
            Err(error) => broken(&error),
        },
        "/healthz" if ready => response(StatusCode::OK, PLAIN, "ok\n"),
        "/healthz" => response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "starting\n"),
        _ => response(StatusCode::NOT_FOUND, PLAIN, "there are /metrics and /healthz\n"),
    }
}

fn response(status: StatusCode, ty: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(ty));
    response
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        sync::oneshot,
    };

    use super::*;
    use crate::outcome::{AgentMetrics, Metrics};

    fn loopback() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_and_health_are_served_until_stopped() {
        let metrics = Metrics::new(Duration::from_mins(1));
        let policy = metrics.begin("p", 10);
        policy.counter("shells", &[]).unwrap().add(3);
        policy.reserve().unwrap().commit();
        let exposition = Arc::new(Exposition::new(&Arc::new(AgentMetrics::default()), &metrics));
        let ready = Arc::new(AtomicBool::new(false));
        let server = Server::bind(loopback()).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let serving = tokio::spawn(server.serve(exposition, Arc::clone(&ready), stopped));

        let found = ask(address, "GET /metrics").await;
        assert!(
            found.starts_with("HTTP/1.1 200 OK\r\ncontent-type: application/openmetrics-text"),
            "{found}"
        );
        assert!(found.contains("\nshells_total{policy=\"p\"} 3\n"), "{found}");
        assert!(ask(address, "GET /healthz").await.starts_with("HTTP/1.1 503 "));
        ready.store(true, Ordering::Relaxed);
        assert!(ask(address, "GET /healthz").await.starts_with("HTTP/1.1 200 "));
        assert!(ask(address, "GET /").await.starts_with("HTTP/1.1 404 "));
        assert!(ask(address, "POST /metrics").await.starts_with("HTTP/1.1 405 "));
        assert!(ask(address, "HEAD /metrics").await.ends_with("\r\n\r\n"));

        drop(stop);
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn silent_clients_leave_room_for_one_that_asks() {
        let server = Server::bind(loopback()).await.unwrap();
        let address = server.address();
        let exposition = Exposition::new(&Arc::default(), &Metrics::new(Duration::from_mins(1)));
        let serving = tokio::spawn(server.serve(
            Arc::new(exposition),
            Arc::default(),
            std::future::pending(),
        ));
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS - 1 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(ask(address, "GET /metrics").await.starts_with("HTTP/1.1 200 "));
        serving.abort();
    }

    #[tokio::test]
    async fn a_busy_port_is_named_with_what_to_do() {
        let first = Server::bind(loopback()).await.unwrap();
        let address = first.address();
        let error = Server::bind(address).await.unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "cannot serve metrics on {address}: another program listens there (`ss -ltnp sport = :{}` says which); \
                 choose another address with --metrics ADDRESS:PORT or `listen` in [metrics], or `off`",
                address.port()
            )
        );
    }

    #[tokio::test]
    async fn an_address_that_is_not_ours_is_named() {
        let address = ([192, 0, 2, 1], 9470).into();
        let error = Server::bind(address).await.unwrap_err().to_string();
        assert!(
            error.starts_with("cannot serve metrics on 192.0.2.1:9470: Cannot assign"),
            "{error}"
        );
    }
}
