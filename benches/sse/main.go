// sse opens many event streams on one podherald, lets events happen, and measures what reaches whom and when. One JSON
// line a run.
//
//	sse -bin PODHERALD -readers N -events E [-rate R] [-one K]
//
// podherald watches a stub API server in this process. A watch frame is a pod that was just scheduled, so one frame
// makes one event; it carries the time at which it was sent, in the label that becomes the event's user_id.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

var (
	bin     = flag.String("bin", "", "podherald under test")
	label   = flag.String("name", "podherald", "its name, copied to the output")
	core    = flag.String("core", "", "CPU list for podherald, as taskset takes it; default: any")
	address = flag.String("address", "", "where podherald shall listen")
	frame   = flag.String("frame", "", "file whose first line is the watch frame of a pod")
	n       = flag.Int("readers", 1000, "event streams")
	one     = flag.Int("one", 0, "so many of them follow one execution each, the others all")
	events  = flag.Int("events", 1000, "events that happen")
	rate    = flag.Float64("rate", 0, "events a second; 0: all at once")
	settle  = flag.Duration("settle", 3*time.Second, "silence before memory is read")
	drain   = flag.Duration("drain", 20*time.Second, "give up after so long without a delivery")

	monitor *exec.Cmd
)

func main() {
	flag.Parse()
	runtime.LockOSThread() // podherald ends with the thread that started it
	runtime.GOMAXPROCS(4)  // on one core too, the system shares it out: the source is not to wait until no reader has anything
	work, err := os.MkdirTemp("", "podherald-sse")
	check(err)
	defer os.RemoveAll(work)
	source := newSource(*frame, *events)
	launch(work, source)
	defer stop()

	readers := newReaders(*n)
	idle := usage(monitor.Process.Pid)
	for i := range *n {
		if i < *one {
			readers.open(*address, "/executions/"+execution(i%*events)+"/events", false, 1)
		} else {
			readers.open(*address, "/events", true, *events)
		}
	}
	readers.await(readers.greeted, *drain)
	time.Sleep(*settle)
	full, before := usage(monitor.Process.Pid), usage(os.Getpid())

	began := time.Now()
	sent := make(chan time.Duration)
	go func() { sent <- source.play(*rate) }()
	readers.await(readers.satisfied, *drain)
	took := readers.last.Sub(began)
	loaded, mine := usage(monitor.Process.Pid), usage(os.Getpid())
	offered := <-sent

	busy := func(from, to use) float64 { return round(100*(to.cpu-from.cpu).Seconds()/took.Seconds(), 0) }
	perReader := func(u use) float64 { return round((u.rss-idle.rss)*1024/float64(*n), 1) }
	line, err := json.Marshal(map[string]any{
		"name": *label, "readers": *n, "events": *events, "rate": *rate, "load1": load(),
		"offered_per_s": round(float64(*events)/offered.Seconds(), 1),
		"delivered":     readers.delivered, "expected": readers.expected, "disorder": readers.disorder,
		"deliveries_per_s": round(float64(readers.delivered)/took.Seconds(), 0),
		"p50_ms":           percentile(readers.latencies, .5), "p99_ms": percentile(readers.latencies, .99),
		"max_ms": percentile(readers.latencies, 1), "first_p50_ms": percentile(readers.firsts, .5),
		"last_p99_ms": percentile(readers.lasts, .99), "server_busy": busy(full, loaded), "client_busy": busy(before, mine),
		"idle_kib": perReader(full), "loaded_kib": perReader(loaded), "rss_mib": round(idle.rss, 1),
		"cpu_us":          round((loaded.cpu-full.cpu).Seconds()*1e6/math.Max(1, float64(readers.delivered)), 2),
		"events_per_read": round(float64(readers.delivered)/math.Max(1, float64(readers.reads)), 2),
	})
	check(err)
	fmt.Println(string(line))
}

// launch starts podherald and returns once it watches.
func launch(work string, source *source) {
	kubeconfig := filepath.Join(work, "kubeconfig")
	check(os.WriteFile(kubeconfig, source.kubeconfig(), 0o600))
	command := []string{*bin, "serve"}
	if *core != "" {
		command = append([]string{"taskset", "-c", *core}, command...)
	}
	monitor = exec.Command(command[0], command[1:]...)
	monitor.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PODHERALD_KUBE__MODE=cluster",
		"PODHERALD_HTTP__LISTEN="+*address, "PODHERALD_DATA_DIR="+filepath.Join(work, "data"),
		fmt.Sprintf("PODHERALD_HTTP__MAX_STREAMS=%d", *n), fmt.Sprintf("PODHERALD_HTTP__MAX_CONNECTIONS=%d", *n+10),
		"PODHERALD_MONITOR__RECONCILE_INTERVAL=1h")
	monitor.Stderr = os.Stderr
	monitor.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(monitor.Start())
	select {
	case <-source.watched:
	case <-time.After(30 * time.Second):
		check(fmt.Errorf("podherald does not watch"))
	}
	await(30*time.Second, "podherald to listen", func() bool { return dials(*address) })
}

func stop() {
	monitor.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(20*time.Second, func() { monitor.Process.Kill() })
	monitor.Wait()
	kill.Stop()
}

type use struct {
	rss float64 // MiB
	cpu time.Duration
}

func usage(pid int) use {
	var u use
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	check(err)
	var size, resident float64
	fmt.Sscan(string(text), &size, &resident)
	u.rss = resident * float64(os.Getpagesize()) / (1 << 20)
	text, err = os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	check(err)
	_, rest, _ := strings.Cut(string(text), ") ")
	fields, ticks := strings.Fields(rest), [2]int64{}
	fmt.Sscan(fields[11]+" "+fields[12], &ticks[0], &ticks[1])
	u.cpu = time.Duration(ticks[0]+ticks[1]) * 10 * time.Millisecond
	return u
}

// percentile is in milliseconds.
func percentile(latencies []uint32, p float64) float64 {
	if len(latencies) == 0 {
		return 0
	}
	slices.Sort(latencies)
	return round(float64(latencies[int(p*float64(len(latencies)-1))])/1e3, 2)
}

func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

func round(f float64, digits int) float64 {
	unit := math.Pow10(digits)
	return math.Round(f*unit) / unit
}

func await(limit time.Duration, what string, ok func() bool) {
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			check(fmt.Errorf("waited in vain for %s", what))
		}
	}
}

func check(err error) {
	if err != nil {
		if monitor != nil && monitor.Process != nil {
			monitor.Process.Kill()
		}
		log.Fatal(err)
	}
}
