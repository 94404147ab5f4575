// Package kube is the thinnest possible Kubernetes access: an HTTP client from a kubeconfig and a watch that only scans bytes.
package kube

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"go.yaml.in/yaml/v3"
)

// API is one connection pool to one API server.
type API struct {
	Base  string
	C     *http.Client
	token string
}

// Open gives every caller its own transport, so that a watch never shares a connection with writes. It reads the current
// context of a kubeconfig: certificates as inline data, or a token.
func Open(kubeconfig string, h2 bool) (*API, error) {
	text, err := os.ReadFile(kubeconfig)
	if err != nil {
		return nil, err
	}
	var config struct {
		Current  string `yaml:"current-context"`
		Contexts []struct {
			Name    string
			Context struct{ Cluster, User string }
		}
		Clusters []struct {
			Name    string
			Cluster struct {
				Server string
				CA     string `yaml:"certificate-authority-data"`
			}
		}
		Users []struct {
			Name string
			User struct {
				Token string
				Cert  string `yaml:"client-certificate-data"`
				Key   string `yaml:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return nil, fmt.Errorf("%s: %w", kubeconfig, err)
	}
	api, tls, wanted := &API{}, &tls.Config{}, struct{ Cluster, User string }{}
	for _, c := range config.Contexts {
		if c.Name == config.Current {
			wanted.Cluster, wanted.User = c.Context.Cluster, c.Context.User
		}
	}
	for _, c := range config.Clusters {
		if c.Name == wanted.Cluster {
			api.Base, tls.RootCAs = c.Cluster.Server, x509.NewCertPool()
			tls.RootCAs.AppendCertsFromPEM(pem(c.Cluster.CA))
		}
	}
	for _, u := range config.Users {
		if u.Name != wanted.User {
			continue
		}
		api.token = u.User.Token
		if u.User.Cert != "" {
			if tls.Certificates, err = keyPair(pem(u.User.Cert), pem(u.User.Key)); err != nil {
				return nil, fmt.Errorf("%s: %w", kubeconfig, err)
			}
		}
	}
	if api.Base == "" {
		return nil, fmt.Errorf("%s: no cluster for context %q", kubeconfig, config.Current)
	}
	api.C = &http.Client{Transport: &http.Transport{TLSClientConfig: tls, ForceAttemptHTTP2: h2, DisableCompression: true, MaxIdleConnsPerHost: 256}}
	return api, nil
}

func pem(data string) []byte {
	text, _ := base64.StdEncoding.DecodeString(data) // what is no PEM fails at the handshake, with a better message
	return text
}

func keyPair(cert, key []byte) ([]tls.Certificate, error) {
	pair, err := tls.X509KeyPair(cert, key)
	return []tls.Certificate{pair}, err
}

// Request is one with the caller's credentials.
func (a *API) Request(ctx context.Context, method, path string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, a.Base+path, bytes.NewReader(body))
	if err == nil && a.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	return r, err
}

// Do sends a request and discards the answer's body unless it is an error.
func (a *API) Do(ctx context.Context, method, path, ctype string, body []byte) error {
	r, err := a.Request(ctx, method, path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", ctype)
	r.Header.Set("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json") // small answers
	res, err := a.C.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 400))
		return fmt.Errorf("%s %s: %d %s", method, path, res.StatusCode, b)
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// Frame is one watch frame and the moment its last byte was read. Line is valid only during the callback.
type Frame struct {
	At   time.Time
	Line []byte
}

func (f Frame) Type() string  { return scan(f.Line, `"type":"`) }
func (f Frame) Name() string  { return scan(f.Line, `"name":"`) }
func (f Frame) Phase() string { return last(f.Line, `"phase":"`) }
func (f Frame) Synced() bool {
	return bytes.Contains(f.Line, []byte(`k8s.io/initial-events-end":"true"`))
}

// Watch streams pods (streaming list first, then live) and resumes after a plain EOF. It returns on 410 or when ctx ends.
func (a *API) Watch(ctx context.Context, ns, selector string, fn func(Frame)) error {
	rv, path := "", "/api/v1/pods"
	if ns != "" {
		path = "/api/v1/namespaces/" + ns + "/pods"
	}
	for ctx.Err() == nil {
		q := url.Values{"watch": {"1"}, "labelSelector": {selector}, "allowWatchBookmarks": {"true"}}
		if rv == "" {
			q.Set("sendInitialEvents", "true")
			q.Set("resourceVersionMatch", "NotOlderThan")
		} else {
			q.Set("resourceVersion", rv)
		}
		r, err := a.Request(ctx, "GET", path+"?"+q.Encode(), nil)
		if err != nil {
			return err
		}
		res, err := a.C.Do(r)
		if err != nil {
			return err
		}
		if res.StatusCode != 200 {
			res.Body.Close()
			return fmt.Errorf("watch: %s", res.Status)
		}
		for br := bufio.NewReaderSize(res.Body, 1<<20); ; {
			line, err := br.ReadSlice('\n')
			if err != nil {
				break
			}
			f := Frame{time.Now(), line}
			if f.Type() == "ERROR" {
				res.Body.Close()
				return errors.New(string(line))
			}
			if v := scan(line, `"resourceVersion":"`); v != "" {
				rv = v
			}
			fn(f)
		}
		res.Body.Close()
	}
	return ctx.Err()
}

func scan(b []byte, key string) string { return upToQuote(b, bytes.Index(b, []byte(key)), len(key)) }
func last(b []byte, key string) string {
	return upToQuote(b, bytes.LastIndex(b, []byte(key)), len(key))
}
func upToQuote(b []byte, i, n int) string {
	if i < 0 {
		return ""
	}
	b = b[i+n:]
	if j := bytes.IndexByte(b, '"'); j >= 0 {
		return string(b[:j])
	}
	return ""
}
