package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const protobuf = "application/vnd.kubernetes.protobuf"

// blast measures the monitor alone. The watch frames of two pods (one succeeds, one fails) are recorded from the real API
// server, as JSON and as protobuf, and replayed for N pods by a stub API server as fast as the monitor takes them. Ids and
// uids are replaced by others of the same length. Versions grow, as they do in a cluster; but in protobuf they keep their
// length too, so that the lengths around them stay true, and begin again when that is used up.
func blast(ctx context.Context) {
	prepare(ctx, 0)
	plain, coded := record(ctx, false), record(ctx, true)
	var streams atomic.Int64
	var sent, bytesOut atomic.Int64
	goes := make(chan struct{})
	logText := []byte(strings.Repeat("2026-11-21 09:00:00 INFO the program prints a line of plain output\n", 1+max(*logBytes, 0)/68)[:max(*logBytes, 0)])
	stub := func(w http.ResponseWriter, r *http.Request) {
		watch, pods := r.URL.Query().Has("watch"), strings.HasSuffix(r.URL.Path, "/pods")
		switch {
		case strings.HasSuffix(r.URL.Path, "/log"):
			logReads.Add(1)
			w.Header().Set("Content-Type", "text/plain")
			w.Write(logText)
		case r.URL.Path == "/version":
			w.Header().Set("Content-Type", "application/json")
			w.Write([]byte(`{"major":"1","minor":"34","gitVersion":"v1.34.4","platform":"linux/amd64"}`))
		case watch && pods:
			rec := plain
			w.Header().Set("Content-Type", "application/json")
			if strings.HasPrefix(r.Header.Get("Accept"), protobuf) {
				rec = coded
				w.Header().Set("Content-Type", protobuf+";stream=watch")
			}
			rec.once.Do(rec.render)
			w.Write(rec.added)
			if r.URL.Query().Get("sendInitialEvents") == "true" {
				w.Write(rec.bookmark)
			}
			w.(http.Flusher).Flush()
			streams.Add(1)
			select {
			case <-goes:
			case <-r.Context().Done():
				return
			}
			for at, b := 0, rec.changes; at < len(b); at += 1 << 16 {
				k, _ := w.Write(b[at:min(at+1<<16, len(b))])
				bytesOut.Add(int64(k))
			}
			w.(http.Flusher).Flush()
			sent.Store(at(time.Now()))
			<-r.Context().Done()
		case watch:
			w.Header().Set("Content-Type", "application/json")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case r.Method == "GET" && strings.HasSuffix(r.URL.Path, "s"): // a list
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"1"},"items":[]}`,
				map[bool]string{true: "PodList", false: "JobList"}[pods], map[bool]string{true: "v1", false: "batch/v1"}[pods])
		default:
			http.NotFound(w, r)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go http.Serve(l, http.HandlerFunc(stub))
	dir, err := os.MkdirTemp("", "blast")
	check(err)
	defer os.RemoveAll(dir)
	kc := filepath.Join(dir, "kubeconfig")
	check(os.WriteFile(kc, fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"b","clusters":[{"name":"b","cluster":{"server":"http://%s"}}],"contexts":[{"name":"b","context":{"cluster":"b","user":"b"}}],"users":[{"name":"b","user":{"token":"b"}}]}`, l.Addr()), 0o600))
	os.Setenv("KUBECONFIG", kc)
	defer launch()()
	go follow(ctx, *sse)
	must("SSE", await(30*time.Second, connected.Load))
	must("watch", await(30*time.Second, func() bool { return streams.Load() > 0 }))
	time.Sleep(2 * time.Second)
	before := proc(*pid)
	began := time.Now()
	close(goes)
	all, quiet, last := int64(2**n), time.Now(), int64(0)
	await(3*time.Minute, func() bool {
		if s := sseSeen.Load(); s != last {
			last, quiet = s, time.Now()
		}
		return last == all || time.Since(quiet) > *drain
	})
	after := proc(*pid)
	var end int64
	for k := range steps {
		for i := range steps[k] {
			end = max(end, steps[k][i].sse.Load())
		}
	}
	out := result("blast")
	out["frames"], out["watch_mib"], out["watch_taken_ms"] = all, round(float64(bytesOut.Load())/(1<<20)), round(float64(sent.Load()-at(began))/1e6)
	out["lost"], out["events_per_s"], out["all_visible_ms"] = all-sseSeen.Load(), round(float64(sseSeen.Load())/(time.Duration(end)-began.Sub(start)).Seconds()), round(float64(end-at(began))/1e6)
	out["cpu_us_per_event"], out["watches"] = round((after["cpu_s"]-before["cpu_s"])/float64(all)*1e6), streams.Load()
	emit(out)
}

type recording struct {
	proto                    bool
	once                     sync.Once
	frames                   [][]byte // bookmark, then added, running, ended of the pod that succeeds, then of the one that fails
	ids, uids, rvs           []string // by frame
	added, bookmark, changes []byte
}

// record watches two pods of its own through their life.
func record(ctx context.Context, proto bool) *recording {
	rec := &recording{proto: proto}
	mark := map[bool]string{false: "j", true: "p"}[proto]
	model := [2]string{runID + "-m000" + mark, runID + "-n000" + mark}
	plain, coded := watchModel(ctx, model, "application/json"), (*bufio.Reader)(nil)
	if proto {
		coded = watchModel(ctx, model, protobuf+";stream=watch")
	}
	next := func() { // the JSON tells the ids; the other stream has the same frames in the same order
		// The first frame is the bookmark that ends the list; the server sends more of them, whenever it likes.
		skips := len(rec.frames) > 0
		line := frame(skips, func() []byte {
			line, err := plain.ReadBytes('\n')
			check(err)
			return line
		})
		recorded := line
		if proto {
			recorded = frame(skips, func() []byte {
				head := make([]byte, 4)
				_, err := io.ReadFull(coded, head)
				check(err)
				whole := append(head, make([]byte, binary.BigEndian.Uint32(head))...)
				_, err = io.ReadFull(coded, whole[4:])
				check(err)
				return whole
			})
		}
		cut := func(key string) string {
			_, s, _ := strings.Cut(string(line), key)
			s, _, _ = strings.Cut(s, `"`)
			return s
		}
		rec.frames, rec.ids = append(rec.frames, recorded), append(rec.ids, cut(`"execution-id":"`))
		rec.uids, rec.rvs = append(rec.uids, cut(`"uid":"`)), append(rec.rvs, cut(`"resourceVersion":"`))
	}
	next()
	for i, id := range model {
		check(api.Do(ctx, "POST", podsPath, jsonT, pod(id)))
		next()
		for _, code := range []int{-1, 3 * i} {
			check(api.Do(ctx, "PATCH", podsPath+"/executor-"+id+"/status", patchT, status(id, code)))
			next()
		}
	}
	for _, id := range model {
		check(api.Do(ctx, "DELETE", podsPath+"/executor-"+id, jsonT, []byte(`{"gracePeriodSeconds":0}`)))
	}
	return rec
}

// frame reads the next frame, in either encoding; bookmarks are passed over if asked to.
func frame(skipsBookmarks bool, read func() []byte) []byte {
	for {
		next := read()
		if !skipsBookmarks || !bytes.Contains(next[:min(len(next), 64)], []byte("BOOKMARK")) {
			return next
		}
	}
}

func watchModel(ctx context.Context, model [2]string, accept string) *bufio.Reader {
	r, err := api.Request(ctx, "GET", podsPath+"?watch=1&labelSelector=execution-id+in+("+model[0]+","+model[1]+
		")&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", nil)
	check(err)
	r.Header.Set("Accept", accept)
	res, err := api.C.Do(r)
	check(err)
	must("watch: "+res.Status, res.StatusCode == 200)
	return bufio.NewReader(res.Body)
}

// frames prints the three watch frames of a pod that succeeds, as the API server sends them: a fixture for other benches.
func frames(ctx context.Context) {
	prepare(ctx, 0)
	os.Stdout.Write(bytes.Join(record(ctx, false).frames[1:4], nil))
}

// render makes all frames: every pod added; then, a hundred at a time, running and ended.
func (rec *recording) render() {
	var base, limit, k int64 = 0, 1, 0
	for _, rv := range rec.rvs {
		var v int64
		fmt.Sscan(rv, &v)
		base = max(base, v)
	}
	for limit <= base {
		limit *= 10
	}
	put := func(out *[]byte, pod, kind int) {
		k++
		f := kind + 1
		if codes[pod] != 0 {
			f += 3
		}
		b := bytes.ReplaceAll(rec.frames[f], []byte(rec.ids[f]), []byte(ids[pod]))
		b = bytes.ReplaceAll(b, []byte(rec.uids[f]), fmt.Appendf(nil, "%08x-0000-4000-8000-%012x", pod, len(ids)))
		rv, mark := fmt.Sprint(base+k), `"resourceVersion":"`
		if rec.proto {
			rv = fmt.Sprint(base + k%(limit-base))
			mark = "\x32" + string(rune(len(rv))) // the field's tag, and the length of what follows
		}
		*out = append(*out, bytes.Replace(b, []byte(mark+rec.rvs[f]), []byte(mark+rv), 1)...)
	}
	rec.bookmark = rec.frames[0]
	for i := range ids {
		put(&rec.added, i, 0)
	}
	for from := 0; from < len(ids); from += 100 {
		for kind := 1; kind <= 2; kind++ {
			for i := from; i < min(from+100, len(ids)); i++ {
				put(&rec.changes, i, kind)
			}
		}
	}
}
