// Package limiter slows down clients that ask the catalogue too often.
//
// Every client has a bucket of tokens. A request takes one; tokens flow back at a steady rate up to the size of the
// bucket, so that short bursts pass and long ones do not.
package limiter

import (
	"fmt"
	"math"
	"net"
	"net/http"
	"sync"
	"time"
)

// Clock tells the time; tests bring their own.
type Clock func() time.Time

type bucket struct {
	tokens float64
	seen   time.Time
}

// Limiter holds a bucket for each client that was seen lately.
type Limiter struct {
	mu      sync.Mutex
	rate    float64
	size    float64
	now     Clock
	buckets map[string]*bucket
	swept   time.Time
}

// New returns a limiter that lets rate requests a second pass, and bursts of size.
func New(rate float64, size int, now Clock) (*Limiter, error) {
	if rate <= 0 || size < 1 {
		return nil, fmt.Errorf("limiter: rate %g and size %d must be positive", rate, size)
	}
	if now == nil {
		now = time.Now
	}
	return &Limiter{rate: rate, size: float64(size), now: now, buckets: map[string]*bucket{}, swept: now()}, nil
}

// Allow takes a token from the client's bucket. If there is none, it returns how long the client should wait for one.
func (l *Limiter) Allow(client string) (bool, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.sweep(now)
	b, known := l.buckets[client]
	if !known {
		b = &bucket{tokens: l.size, seen: now}
		l.buckets[client] = b
	}
	b.tokens = math.Min(l.size, b.tokens+now.Sub(b.seen).Seconds()*l.rate)
	b.seen = now
	if b.tokens < 1 {
		return false, time.Duration((1 - b.tokens) / l.rate * float64(time.Second))
	}
	b.tokens--
	return true, 0
}

// sweep forgets clients whose buckets have long been full again, once in as much time as a bucket takes to fill.
func (l *Limiter) sweep(now time.Time) {
	full := time.Duration(l.size / l.rate * float64(time.Second))
	if now.Sub(l.swept) < full {
		return
	}
	for client, b := range l.buckets {
		if now.Sub(b.seen) >= full {
			delete(l.buckets, client)
		}
	}
	l.swept = now
}

// Len returns how many clients are remembered.
func (l *Limiter) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.buckets)
}

// Middleware answers with 429 and a Retry-After header where the limiter says no.
func (l *Limiter) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		allowed, wait := l.Allow(clientOf(r))
		if !allowed {
			w.Header().Set("Retry-After", fmt.Sprint(int(math.Ceil(wait.Seconds()))))
			http.Error(w, "too many requests", http.StatusTooManyRequests)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// clientOf names the client of a request. IPv6 clients own at least a /64, so they are known by that.
func clientOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	ip := net.ParseIP(host)
	if ip == nil || ip.To4() != nil {
		return host
	}
	return ip.Mask(net.CIDRMask(64, 128)).String() + "/64"
}
