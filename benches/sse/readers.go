package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// readers are many streams read by one thread: a goroutine and a buffer for each would cost more than what is measured.
type readers struct {
	epoll     int
	byFD      map[int32]*reader
	buffer    []byte
	latencies []uint32 // of all deliveries; microseconds, as those that follow
	firsts    []uint32 // of each event at the first reader of all that has it
	lasts     []uint32 // at the last
	reads     int
	delivered int
	expected  int
	disorder  int // events that are not the next one of their stream
	greetings int
	done      int
	last      time.Time // of the last delivery
}

type reader struct {
	fd       int
	all      bool // follows all executions, and so sees positions rise one by one
	expected int
	got      int
	greeted  bool
	id       []byte // of the frame that is coming in
	position int64  // of the last event
	rest     []byte // an incomplete line
}

// perSource keeps each source address clear of the kernel's range of ports.
const perSource = 5000

func newReaders(n int) *readers {
	epoll, err := syscall.EpollCreate1(0)
	check(err)
	return &readers{epoll: epoll, byFD: make(map[int32]*reader, n), buffer: make([]byte, 1<<20)}
}

func (r *readers) open(address, path string, all bool, expected int) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	check(err)
	from := [4]byte{127, 0, 0, byte(2 + len(r.byFD)/perSource)}
	check(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: from}))
	to := netip.MustParseAddrPort(address)
	check(syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}))
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", path, address)
	_, err = syscall.Write(fd, []byte(request))
	check(err)
	check(syscall.SetNonblock(fd, true))
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
	check(syscall.EpollCtl(r.epoll, syscall.EPOLL_CTL_ADD, fd, &event))
	r.byFD[int32(fd)] = &reader{fd: fd, all: all, expected: expected}
	r.expected += expected
}

// greeted: every stream has begun. One of an execution that does not exist yet begins with nothing but `retry`.
func (r *readers) greeted() bool { return r.greetings == len(r.byFD) }

func (r *readers) satisfied() bool { return r.done == len(r.byFD) }

// await reads until it is so, or nothing has come for so long.
func (r *readers) await(done func() bool, limit time.Duration) {
	ready := make([]syscall.EpollEvent, 1024)
	for quiet := time.Now(); !done(); {
		n, err := syscall.EpollWait(r.epoll, ready, 100)
		if err == syscall.EINTR {
			continue
		}
		check(err)
		if n > 0 {
			quiet = time.Now()
		} else if time.Since(quiet) > limit {
			return
		}
		for _, event := range ready[:n] {
			r.read(r.byFD[event.Fd])
		}
	}
}

func (r *readers) read(from *reader) {
	kept := copy(r.buffer, from.rest)
	n, err := syscall.Read(from.fd, r.buffer[kept:])
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return
	}
	check(err)
	if n == 0 {
		check(fmt.Errorf("podherald closed a stream"))
	}
	now, before := time.Now(), r.delivered
	text := r.buffer[:kept+n]
	for {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		if !whole {
			break
		}
		r.line(from, line, now)
		text = rest
	}
	from.rest = append(from.rest[:0], text...)
	if r.delivered > before {
		r.last = now
		r.reads++
	}
}

// line takes one line of the body or of the chunks around it; podherald never begins a chunk within a line.
func (r *readers) line(from *reader, line []byte, now time.Time) {
	if id, is := bytes.CutPrefix(line, []byte("id: ")); is {
		from.id = append(from.id[:0], id...)
		return
	}
	if bytes.HasPrefix(line, []byte("retry: ")) && !from.greeted {
		from.greeted = true
		r.greetings++
	}
	data, is := bytes.CutPrefix(line, []byte("data: "))
	if !is || !bytes.Contains(data, []byte(`"event_type":"pod_scheduled"`)) {
		return
	}
	if from.all {
		position, err := strconv.ParseInt(string(from.id[bytes.LastIndexByte(from.id, ':')+1:]), 10, 64)
		check(err)
		if from.got > 0 && position != from.position+1 {
			r.disorder++
		}
		from.position = position
	}
	nth := from.got
	from.got++
	r.delivered++
	if from.got == from.expected {
		r.done++
	}
	if sent, err := strconv.ParseInt(string(value(data, `"user_id":"`)), 10, 64); err == nil {
		latency := uint32(max(0, now.UnixMicro()-sent))
		r.latencies = append(r.latencies, latency)
		if from.all {
			r.spread(nth, latency)
		}
	}
}

// spread takes note of the nth event's latency at one more of the readers of all.
func (r *readers) spread(nth int, latency uint32) {
	if nth == len(r.firsts) {
		r.firsts, r.lasts = append(r.firsts, latency), append(r.lasts, latency)
		return
	}
	r.firsts[nth], r.lasts[nth] = min(r.firsts[nth], latency), max(r.lasts[nth], latency)
}

func dials(address string) bool {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	defer connection.Close()
	fmt.Fprintf(connection, "GET /readyz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", address)
	answer := make([]byte, 64)
	n, _ := connection.Read(answer)
	return strings.HasPrefix(string(answer[:n]), "HTTP/1.1 200")
}
