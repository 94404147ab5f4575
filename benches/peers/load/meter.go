package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"podherald/benches/peers/kube"
)

// step is one status write and when it was seen; times are nanoseconds since the start of this process, 0 = not yet.
type step struct{ sent, acked, sse, raw atomic.Int64 }

// eventTypes are those that tell of a status write, and whether they say that the pod has ended.
var eventTypes = map[string]bool{"execution_running": false, "execution_completed": true, "execution_failed": true, "execution_timeout": true}

// statuses are how a snapshot says the same of an execution that has ended.
var statuses = map[string]string{"completed": "execution_completed", "failed": "execution_failed", "timeout": "execution_timeout"}

var (
	start = time.Now()
	steps [2][]step // [0] running, [1] terminal
	codes []int
	index = map[string]int{}

	logReads, sseSeen, rawSeen, dups, wrong, reconnects, unknown atomic.Int64
	terminalSeen                                                 atomic.Int64
)

func at(t time.Time) int64 { return int64(t.Sub(start)) }

func see(id string, kind int, failed bool, t int64, raw bool) {
	i, ok := index[id]
	if !ok {
		unknown.Add(1)
		return
	}
	s := &steps[kind][i]
	if raw {
		if s.raw.CompareAndSwap(0, t) {
			rawSeen.Add(1)
		}
	} else if !s.sse.CompareAndSwap(0, t) {
		dups.Add(1)
	} else {
		sseSeen.Add(1)
		if kind == 1 {
			terminalSeen.Add(1)
			if failed != (codes[i] != 0) {
				wrong.Add(1)
			}
		}
	}
}

// follow reads the firehose; times are taken on reading, decoding is another goroutine's.
func follow(ctx context.Context, url string) {
	idKey, typeKey := []byte(`"execution_id":`), []byte(`"event_type":`)
	type msg struct {
		t    int64
		data []byte
	}
	queue := make(chan msg, 1<<16)
	go func() {
		for m := range queue {
			id, one := only(m.data, idKey)
			kind, two := only(m.data, typeKey)
			if _, known := eventTypes[kind]; one && two && known { // the quick way for one plain event
				seeEvent(id, kind, m.t)
				continue
			}
			var v any
			if json.Unmarshal(m.data, &v) == nil {
				visit(v, m.t)
			}
		}
	}()
	c, lastID := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}, ""
	for ; ctx.Err() == nil; reconnects.Add(1) {
		r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
		check(err)
		r.Header.Set("Accept", "text/event-stream")
		if lastID != "" {
			r.Header.Set("Last-Event-ID", lastID)
		}
		res, err := c.Do(r)
		if err != nil || res.StatusCode != 200 {
			if err == nil {
				res.Body.Close()
			}
			reconnects.Add(-1) // not up yet
			time.Sleep(2 * time.Millisecond)
			continue
		}
		connected.Store(true)
		br, data, got := bufio.NewReaderSize(res.Body, 4<<20), []byte(nil), int64(0)
		for {
			line, err := br.ReadSlice('\n')
			if err != nil {
				break
			}
			line = bytes.TrimRight(line, "\r\n")
			if d, ok := bytes.CutPrefix(line, []byte("data:")); ok {
				got = at(time.Now())
				data = append(data, d...)
			} else if d, ok := bytes.CutPrefix(line, []byte("id:")); ok {
				lastID = strings.TrimSpace(string(d))
			} else if len(line) == 0 && len(data) > 0 {
				queue <- msg{got, data}
				data = nil
			}
		}
		res.Body.Close()
	}
}

// only returns the string value of a key that occurs exactly once.
func only(b, key []byte) (string, bool) {
	i := bytes.Index(b, key)
	if i < 0 || bytes.Contains(b[i+1:], key) {
		return "", false
	}
	v, ok := bytes.CutPrefix(bytes.TrimLeft(b[i+len(key):], " "), []byte(`"`))
	j := bytes.IndexByte(v, '"')
	if !ok || j < 0 {
		return "", false
	}
	return string(v[:j]), true
}

// visit finds events wherever they lie in a message, so that a snapshot with many executions counts too.
func visit(v any, t int64) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			visit(x, t)
		}
	case map[string]any:
		id, _ := v["execution_id"].(string)
		kind, _ := v["event_type"].(string)
		if kind == "" {
			status, _ := v["status"].(string)
			kind = statuses[status]
		}
		if _, known := eventTypes[kind]; known && id != "" {
			seeEvent(id, kind, t)
			return
		}
		for _, x := range v {
			visit(x, t)
		}
	}
}

func seeEvent(id, kind string, t int64) {
	if eventTypes[kind] {
		see(id, 1, kind != "execution_completed", t, false)
	} else {
		see(id, 0, false, t, false)
	}
}

func followRaw(ctx context.Context) {
	a, err := kube.Open(*kubeconfig, false)
	check(err)
	check2(ctx, a.Watch(ctx, *ns, *selector, func(f kube.Frame) {
		kind := map[string]int{"Running": 1, "Succeeded": 2, "Failed": 2}[f.Phase()]
		if f.Synced() {
			connected.Store(true)
		}
		if kind > 0 && f.Type() == "MODIFIED" {
			see(strings.TrimPrefix(f.Name(), "executor-"), kind-1, false, at(f.At), true)
		}
	}))
}

type pct map[string]float64

func percentiles(ns []int64) pct {
	if len(ns) == 0 {
		return nil
	}
	slices.Sort(ns)
	q := func(p float64) float64 { return math.Round(float64(ns[int(p*float64(len(ns)-1))])/1e4) / 100 }
	return pct{"p50": q(.5), "p90": q(.9), "p99": q(.99), "max": q(1)}
}

// latencies gives milliseconds from request sent, and from acknowledged (negative: seen before the writer had its answer).
func latencies(kind int, raw bool) map[string]pct {
	var sent, acked []int64
	for i := range steps[kind] {
		s := &steps[kind][i]
		t := s.sse.Load()
		if raw {
			t = s.raw.Load()
		}
		if t > 0 && s.acked.Load() > 0 {
			sent, acked = append(sent, t-s.sent.Load()), append(acked, t-s.acked.Load())
		}
	}
	return map[string]pct{"from_sent": percentiles(sent), "from_ack": percentiles(acked)}
}

// lead is what the monitor adds to a raw watch of the same frame.
func lead(kind int) pct {
	var d []int64
	for i := range steps[kind] {
		if s := &steps[kind][i]; s.sse.Load() > 0 && s.raw.Load() > 0 {
			d = append(d, s.sse.Load()-s.raw.Load())
		}
	}
	return percentiles(d)
}

// proc reads a process's memory and CPU from /proc.
func proc(pid int) map[string]float64 {
	if pid == 0 {
		return nil
	}
	m := map[string]float64{}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, l := range strings.Split(string(b), "\n") {
		if f := strings.Fields(l); len(f) > 1 && (f[0] == "VmHWM:" || f[0] == "VmRSS:") {
			kb, _ := strconv.ParseFloat(f[1], 64)
			m[map[string]string{"VmHWM:": "peak_rss_mib", "VmRSS:": "rss_mib"}[f[0]]] = math.Round(kb/102.4) / 10
		}
	}
	b, _ = os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if _, rest, ok := strings.Cut(string(b), ") "); ok {
		f := strings.Fields(rest)
		u, _ := strconv.ParseFloat(f[11], 64)
		s, _ := strconv.ParseFloat(f[12], 64)
		m["cpu_s"] = (u + s) / 100
	}
	return m
}

func loadavg() string {
	b, _ := os.ReadFile("/proc/loadavg")
	return strings.Join(strings.Fields(string(b))[:1], "")
}

// await polls until ok or the deadline.
func await(d time.Duration, ok func() bool) bool {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}

var gate sync.Mutex // one JSON line at a time

func emit(m map[string]any) {
	gate.Lock()
	defer gate.Unlock()
	b, err := json.Marshal(m)
	check(err)
	fmt.Println(string(b))
}
