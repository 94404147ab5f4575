//! The page's files.

use axum::body::Body;
use http::{Method, StatusCode, header};

use super::{Api, request};

/// What the documents name, and what the scripts import in turn.
fn references(text: &str) -> impl Iterator<Item = String> {
    let quoted = text.split('"').skip(1).step_by(2);
    quoted.filter_map(|word| {
        let name = word.strip_prefix("/assets/").or_else(|| word.strip_prefix("./"))?;
        Some(format!("/assets/{name}"))
    })
}

#[tokio::test(start_paused = true)]
async fn the_page_and_all_that_it_needs_are_in_the_binary() {
    let api = Api::new().await;
    let mut paths = vec!["/".to_owned(), "/docs".to_owned()];
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        next += 1;
        let answer = api.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let found: Vec<String> = references(answer.text()).filter(|found| !paths.contains(found)).collect();
        paths.extend(found);
    }
    for (path, media_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/assets/style.css", "text/css; charset=utf-8"),
        ("/assets/icon.svg", "image/svg+xml"),
        ("/assets/app.js", "text/javascript; charset=utf-8"),
        ("/assets/docs.js", "text/javascript; charset=utf-8"),
        ("/assets/stream.js", "text/javascript; charset=utf-8"),
    ] {
        assert!(paths.iter().any(|known| known == path), "{path} is not reached from the documents");
        assert_eq!(api.get(path).await.header("content-type"), media_type, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_page_may_do_nothing_but_ask_its_server() {
    let api = Api::new().await;
    for path in ["/", "/docs", "/assets/app.js", "/assets/style.css"] {
        let answer = api.get(path).await;
        let policy: Vec<&str> = answer.header("content-security-policy").split("; ").collect();
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(&directive), "{path}: {directive} is missing in {policy:?}");
        }
        assert!(!policy.iter().any(|directive| directive.contains("unsafe")), "{policy:?}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(answer.header(name), value, "{path}: {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_browser_that_has_the_file_is_told_so() {
    let api = Api::new().await;
    let ask = async |known: &str| {
        api.send(request("/assets/app.js").header(header::IF_NONE_MATCH, known).body(Body::empty()).unwrap()).await
    };
    let tag = api.get("/assets/app.js").await.header("etag").to_owned();
    assert!(tag.len() > 20 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        let answer = ask(&known).await;
        assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{known}");
        assert_eq!((answer.body.len(), answer.header("etag")), (0, &*tag));
        assert!(answer.header("content-security-policy").contains("default-src 'none'"));
    }
    assert_eq!(ask("\"other\"").await.status, StatusCode::OK);
    assert_ne!(api.get("/assets/list.js").await.header("etag"), tag);
}

#[tokio::test(start_paused = true)]
async fn a_head_is_the_answer_without_its_body() {
    let api = Api::new().await;
    for path in ["/", "/docs", "/assets/style.css"] {
        let (get, head) =
            (api.get(path).await, api.send(request(path).method(Method::HEAD).body(Body::empty()).unwrap()).await);
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0), "{path}");
        for name in ["etag", "content-type", "content-security-policy"] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_file_of_the_page_is_a_problem() {
    let api = Api::new().await;
    for path in [
        "/assets/nothing.js",
        "/assets/",
        "/assets",
        "/assets/..%2Fsrc%2Fmain.rs",
        "/assets/%FF",
        "/index.html",
        "/docs/",
    ] {
        let answer = api.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.json()["type"], "urn:podherald:problem:no-route", "{path}");
    }
    let answer = api.send(request("/").method(Method::POST).body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    for (name, value) in [(header::HOST, "evil.example"), (header::ORIGIN, "http://evil.example")] {
        let foreign = match name {
            header::HOST => http::Request::get("/").header(name, value),
            name => request("/").header(name, value),
        };
        let answer = api.send(foreign.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.json()["type"], "urn:podherald:problem:forbidden", "{value}");
    }
}
