// load makes pods whose phases it writes itself, and measures how soon a monitor under test shows them. One JSON line a run.
//
//	load latency     -n N -rate R (status writes a second, 0: as fast as possible) [-sse URL] [-raw]
//	load cold        -n N -cmd CMD -ready URL -sse URL?last_event_id=0
//	load sse-fanout  -conns C -sse URL [-n N -rate R]
//	load blast       -n N -cmd CMD -ready URL -sse URL      (a stub API server replays recorded frames: the monitor alone)
//	load frames                                             (prints the watch frames of one pod's life)
//
// -cmd starts the monitor afresh for the run; without it give -pid of a running one (memory, CPU).
package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	"podherald/benches/peers/kube"
)

var (
	fs         = flag.NewFlagSet("load", flag.ExitOnError)
	kubeconfig = fs.String("kubeconfig", os.Getenv("KUBECONFIG"), "")
	ns         = fs.String("ns", "bench", "namespace of the pods")
	selector   = fs.String("selector", "execution-id", "what -raw watches")
	label      = fs.String("name", "", "name of the monitor, copied to the output")
	n          = fs.Int("n", 500, "pods; each gives one running and one terminal transition")
	rate       = fs.Float64("rate", 50, "status writes a second, 0: as fast as -p writers can")
	par        = fs.Int("p", 32, "parallel writers")
	hold       = fs.Duration("hold", 300*time.Millisecond, "from a pod's running to its end, with -rate")
	failing    = fs.Float64("failing", 0.2, "fraction of pods that exit 3")
	logBytes   = fs.Int("log-bytes", 1024, "log of each pod; -1: 404")
	sse        = fs.String("sse", "", "firehose URL")
	raw        = fs.Bool("raw", false, "also watch raw in this process: the floor")
	command    = fs.String("cmd", "", "start the monitor with this command and stop it after")
	cmdLog     = fs.String("cmd-log", os.DevNull, "file for the command's output")
	ready      = fs.String("ready", "", "URL that answers 200 when the monitor is ready")
	pid        = fs.Int("pid", 0, "the monitor's pid when -cmd is not given")
	drain      = fs.Duration("drain", 20*time.Second, "wait for missing events after the last write")
	keep       = fs.Bool("keep", false, "leave the pods")
	conns      = fs.Int("conns", 1000, "sse-fanout: connections")
	batch      = fs.Int("batch", 200, "sse-fanout: connections opened at a time")

	api       *kube.API
	runID     = fmt.Sprintf("%x", time.Now().UnixMilli()&0xffffffff)
	ids       []string
	podsPath  string
	connected atomic.Bool
	child     *os.Process // the monitor that -cmd started
)

func main() {
	if len(os.Args) < 2 {
		log.Fatal("load latency|cold|sse-fanout|blast|frames [flags]; -h")
	}
	fs.Parse(os.Args[2:])
	podsPath = "/api/v1/namespaces/" + *ns + "/pods"
	var err error
	api, err = kube.Open(*kubeconfig, true)
	check(err)
	for kind := range steps {
		steps[kind] = make([]step, *n)
	}
	for i := range *n {
		ids = append(ids, fmt.Sprintf("%s-%05d", runID, i))
		index[ids[i]] = i
		codes = append(codes, map[bool]int{true: 3}[rand.Float64() < *failing])
	}
	mode, ok := map[string]func(context.Context){"latency": latency, "cold": cold, "sse-fanout": fanout, "blast": blast, "frames": frames}[os.Args[1]]
	if !ok {
		log.Fatal("no such mode: ", os.Args[1])
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	mode(ctx)
}

func latency(ctx context.Context) {
	created := prepare(ctx, *n)
	stop := launch()
	defer clean(ctx)
	defer stop()
	if *sse != "" {
		go follow(ctx, *sse)
		must("SSE", await(30*time.Second, connected.Load))
	}
	if *raw {
		connected.Store(false)
		go followRaw(ctx)
		must("raw watch", await(30*time.Second, connected.Load))
	}
	time.Sleep(time.Second)
	before := proc(*pid)
	began := time.Now()
	write(ctx)
	wrote := time.Since(began)
	all := int64(2 * *n)
	await(*drain, func() bool { return (*sse == "" || sseSeen.Load() == all) && (!*raw || rawSeen.Load() == all) })
	after := proc(*pid)
	out := result("latency")
	out["rate_target"], out["rate_written"], out["create_per_s"] = *rate, round(float64(all)/wrote.Seconds()), round(float64(*n)/created.Seconds())
	for name, r := range map[string]bool{"sse": false, "raw": true} {
		if r && !*raw || !r && *sse == "" {
			continue
		}
		var last int64
		for k := range steps {
			for i := range steps[k] {
				last = max(last, map[bool]*atomic.Int64{false: &steps[k][i].sse, true: &steps[k][i].raw}[r].Load())
			}
		}
		seen := map[bool]int64{false: sseSeen.Load(), true: rawSeen.Load()}[r]
		out[name] = map[string]any{"running_ms": latencies(0, r), "terminal_ms": latencies(1, r), "lost": all - seen,
			"events_per_s": round(float64(seen) / (time.Duration(last) - began.Sub(start)).Seconds()), "behind_ms": round(float64(last-at(began)-int64(wrote)) / 1e6)}
	}
	if *sse != "" && *raw {
		out["sse_after_raw_ms"] = map[string]pct{"running": lead(0), "terminal": lead(1)}
	}
	if before != nil {
		out["cpu_us_per_event"] = round((after["cpu_s"] - before["cpu_s"]) / float64(all) * 1e6)
	}
	emit(out)
}

// write sends all transitions: paced by -rate, or each writer pod after pod.
func write(ctx context.Context) {
	step := func(kind, i int) {
		s, code := &steps[kind][i], -1
		if kind == 1 {
			code = codes[i]
		}
		body := status(ids[i], code)
		s.sent.Store(at(time.Now()))
		check(api.Do(ctx, "PATCH", podsPath+"/executor-"+ids[i]+"/status", patchT, body))
		s.acked.Store(at(time.Now()))
	}
	if *rate <= 0 {
		each(*n, *par, func(i int) { step(0, i); step(1, i) })
		return
	}
	gap := time.Duration(2 * float64(time.Second) / *rate) // between pods; two writes a pod
	lag := int(*hold/gap) + 1                              // a pod's end is written with the running of the pod lag later, half a gap off
	began := time.Now()
	each(2*(*n+lag), *par, func(k int) {
		time.Sleep(time.Until(began.Add(time.Duration(k) * gap / 2)))
		if i := k / 2; k%2 == 0 && i < *n {
			step(0, i)
		} else if i -= lag; k%2 == 1 && i >= 0 && i < *n {
			must("running acknowledged", await(time.Minute, func() bool { return steps[0][i].acked.Load() > 0 }))
			step(1, i)
		}
	})
}

func cold(ctx context.Context) {
	prepare(ctx, *n)
	each(*n, *par, func(i int) {
		steps[1][i].sent.Store(at(time.Now()))
		check(api.Do(ctx, "PATCH", podsPath+"/executor-"+ids[i]+"/status", patchT, status(ids[i], codes[i])))
		steps[1][i].acked.Store(at(time.Now()))
	})
	defer clean(ctx)
	time.Sleep(2 * time.Second)
	go follow(ctx, *sse)
	var healthy, stop = time.Duration(0), func() {}
	began := time.Now()
	go func() {
		for ; healthy == 0; time.Sleep(2 * time.Millisecond) {
			if ok(*ready) {
				healthy = time.Since(began)
			}
		}
	}()
	stop = spawn()
	defer stop()
	await(2*time.Minute, func() bool { return healthy > 0 && terminalSeen.Load() == int64(*n) })
	p := proc(*pid)
	out := result("cold")
	var first, last int64 = math.MaxInt64, 0
	for i := range steps[1] {
		if t := steps[1][i].sse.Load(); t > 0 {
			first, last = min(first, t), max(last, t)
		}
	}
	b := at(began)
	out["ready_ms"], out["first_event_ms"], out["all_visible_ms"] = round(float64(healthy)/1e6), round(float64(first-b)/1e6), round(float64(last-b)/1e6)
	out["lost"], out["at_end"] = int64(*n)-terminalSeen.Load(), p
	emit(out)
}

func fanout(ctx context.Context) {
	prepare(ctx, *n)
	stop := launch()
	defer clean(ctx)
	defer stop()
	u, err := url.Parse(*sse)
	check(err)
	var events, open atomic.Int64
	idle := proc(*pid)
	for opened := 0; opened < *conns; opened += *batch {
		each(min(*batch, *conns-opened), *batch, func(int) {
			c, err := net.Dial("tcp", u.Host)
			check(err)
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", u.RequestURI(), u.Host)
			res, err := http.ReadResponse(bufio.NewReaderSize(c, 8192), nil)
			check(err)
			must("200: "+res.Status, res.StatusCode == 200)
			open.Add(1)
			go func() {
				defer open.Add(-1)
				countEvents(res.Body, &events)
			}()
		})
	}
	time.Sleep(3 * time.Second)
	full := proc(*pid)
	events.Store(0)
	out := result("sse-fanout")
	out["conns"], out["kib_per_conn"] = open.Load(), round((full["rss_mib"]-idle["rss_mib"])*1024/float64(*conns))
	if *n > 0 {
		want := int64(*conns) * int64(2**n)
		began := time.Now()
		write(ctx)
		wrote, end := time.Since(began), time.Now()
		for last, quiet := int64(0), time.Now(); events.Load() < want && time.Since(quiet) < 5*time.Second; time.Sleep(5 * time.Millisecond) {
			if e := events.Load(); e != last {
				last, quiet, end = e, time.Now(), time.Now()
			}
		}
		if events.Load() >= want {
			end = time.Now()
		}
		loaded := proc(*pid)
		out["rate_written"] = round(float64(2**n) / wrote.Seconds())
		out["delivered"], out["expected"], out["deliveries_per_s"] = events.Load(), want, round(float64(events.Load())/end.Sub(began).Seconds())
		out["still_open"], out["cpu_us_per_delivery"] = open.Load(), round((loaded["cpu_s"]-full["cpu_s"])*1e6/float64(max(1, events.Load())))
		out["kib_per_conn_after"] = round((loaded["rss_mib"] - idle["rss_mib"]) * 1024 / float64(*conns))
	}
	emit(out)
}

// countEvents counts what tells of a write, whole lines at a time, until the stream ends.
func countEvents(stream io.Reader, events *atomic.Int64) {
	buffer, have := make([]byte, 8192), 0
	for {
		if have == len(buffer) { // a line longer than that
			buffer = append(buffer, make([]byte, len(buffer))...)
		}
		k, err := stream.Read(buffer[have:])
		if err != nil {
			return
		}
		have += k
		whole := bytes.LastIndexByte(buffer[:have], '\n') + 1
		for kind := range eventTypes {
			events.Add(int64(bytes.Count(buffer[:whole], []byte(`"`+kind+`"`))))
		}
		have = copy(buffer, buffer[whole:have])
	}
}

func result(mode string) map[string]any {
	var acks []int64
	for k := range steps {
		for i := range steps[k] {
			if s := &steps[k][i]; s.acked.Load() > 0 {
				acks = append(acks, s.acked.Load()-s.sent.Load())
			}
		}
	}
	return map[string]any{"mode": mode, "name": *label, "n": *n, "write_ack_ms": percentiles(acks), "dup": dups.Load(), "wrong": wrong.Load(),
		"foreign": unknown.Load(), "reconnects": reconnects.Load(), "log_reads": logReads.Load(), "load1": loadavg(), "proc": proc(*pid)}
}

// launch starts the command, if any, and waits until it is ready.
func launch() (stop func()) {
	stop = spawn()
	if *ready != "" {
		must("ready "+*ready, await(60*time.Second, func() bool { return ok(*ready) }))
	}
	return stop
}

func spawn() (stop func()) {
	if *command == "" {
		return func() {}
	}
	f, err := os.OpenFile(*cmdLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	check(err)
	c := exec.Command("sh", "-c", "exec "+*command) // exec: our child is the monitor itself
	c.Stdout, c.Stderr = f, f
	check(c.Start())
	*pid, child = c.Process.Pid, c.Process
	return func() {
		c.Process.Signal(syscall.SIGTERM)
		t := time.AfterFunc(5*time.Second, func() { c.Process.Kill() })
		c.Wait()
		t.Stop()
	}
}

var probe = &http.Client{Timeout: 2 * time.Second}

func ok(url string) bool {
	r, err := probe.Get(url)
	if err != nil {
		return false
	}
	r.Body.Close()
	return r.StatusCode == 200
}

func round(f float64) float64 { return math.Round(f*10) / 10 }
func must(what string, ok bool) {
	if !ok {
		check(fmt.Errorf("not in time: %s", what))
	}
}
func check(err error) {
	if err != nil {
		if child != nil {
			child.Kill()
		}
		log.Fatal(err)
	}
}
func check2(ctx context.Context, err error) {
	if ctx.Err() == nil {
		check(err)
	}
}
