package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// source is an API server that knows no pods at first and then tells of one after the other.
type source struct {
	address  string
	pod      []byte
	id, uid  []byte
	count    int
	watched  chan struct{} // closed at the first watch
	starting sync.Once
	frames   chan []byte
}

const version = 1000

func execution(i int) string { return fmt.Sprintf("sse-%06d", i) }

func newSource(file string, count int) *source {
	text, err := os.ReadFile(file)
	check(err)
	pod, _, _ := bytes.Cut(text, []byte("\n"))
	s := &source{pod: pod, count: count, watched: make(chan struct{}), frames: make(chan []byte, 1024)}
	s.id, s.uid = value(pod, `"execution-id":"`), value(pod, `"uid":"`)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	s.address = listener.Addr().String()
	go http.Serve(listener, s)
	return s
}

func value(text []byte, key string) []byte {
	_, text, _ = bytes.Cut(text, []byte(key))
	text, _, _ = bytes.Cut(text, []byte(`"`))
	return text
}

func (s *source) kubeconfig() []byte {
	return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":`+
		`{"server":"http://%s"}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u",`+
		`"user":{"token":"t"}}]}`, s.address)
}

func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query, pods := r.URL.Query(), strings.HasSuffix(r.URL.Path, "/pods")
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Path == "/version":
		fmt.Fprint(w, `{"major":"1","minor":"34","gitVersion":"v1.34.4","platform":"linux/amd64"}`)
	case query.Has("watch"):
		if query.Get("sendInitialEvents") == "true" {
			kind := map[bool]string{true: `"Pod","apiVersion":"v1"`, false: `"Job","apiVersion":"batch/v1"`}[pods]
			fmt.Fprintf(w, `{"type":"BOOKMARK","object":{"kind":%s,"metadata":{"resourceVersion":"%d","annotations":`+
				`{"k8s.io/initial-events-end":"true"}}}}`+"\n", kind, version)
		}
		w.(http.Flusher).Flush()
		if !pods || !strings.Contains(query.Get("labelSelector"), "execution-id") {
			<-r.Context().Done()
			return
		}
		s.starting.Do(func() { close(s.watched) })
		for {
			select {
			case frame := <-s.frames:
				w.Write(frame)
				if len(s.frames) == 0 {
					w.(http.Flusher).Flush()
				}
			case <-r.Context().Done():
				return
			}
		}
	case strings.HasSuffix(r.URL.Path, "s"):
		kind := map[bool]string{true: `"PodList","apiVersion":"v1"`, false: `"JobList","apiVersion":"batch/v1"`}[pods]
		fmt.Fprintf(w, `{"kind":%s,"metadata":{"resourceVersion":"%d"},"items":[]}`, kind, version)
	default:
		http.NotFound(w, r)
	}
}

// play lets the events happen and returns how long that took.
func (s *source) play(rate float64) time.Duration {
	began := time.Now()
	for i := range s.count {
		if rate > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(float64(i) / rate * float64(time.Second)))))
		}
		frame := bytes.ReplaceAll(s.pod, s.id, []byte(execution(i)))
		frame = bytes.ReplaceAll(frame, s.uid, fmt.Appendf(nil, "%08x-0000-4000-8000-000000000000", i))
		frame = replace(frame, `"resourceVersion":"`, fmt.Sprint(version+1+i))
		frame = replace(frame, `"user-id":"`, fmt.Sprint(time.Now().UnixMicro()))
		s.frames <- append(frame, '\n')
	}
	return time.Since(began)
}

func replace(frame []byte, key, with string) []byte {
	return bytes.Replace(frame, append([]byte(key), value(frame, key)...), append([]byte(key), with...), 1)
}
