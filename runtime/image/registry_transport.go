package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"
)

// certsDir is where Docker keeps, by registry, the certificates of authorities and of clients.
// Source: docs.docker.com, "Verify repository client with certificates".
const certsDir = "/etc/docker/certs.d"

// newTransport is the way to a registry, and to where it redirects. Requests that fail for a passing reason are made
// again; all bodies but those of blobs are bounded; plain HTTP is refused unless it is allowed.
func newTransport(reg name.Registry, insecure bool) (http.RoundTripper, error) {
	t := remote.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{InsecureSkipVerify: insecure} // only where the user says so, and on loopback
	if err := addCerts(t.TLSClientConfig, filepath.Join(certsDir, reg.RegistryStr())); err != nil {
		return nil, fmt.Errorf("certificates for %s: %w", reg.RegistryStr(), err)
	}
	asking := t.Clone()
	asking.ResponseHeaderTimeout = time.Minute // an upload's answer may take longer: the registry looks at all of it first
	guarded := &guard{ask: asking, send: t, plain: insecure}
	retry := transport.NewRetry(guarded, transport.WithRetryBackoff(retryBackoff), transport.WithRetryPredicate(isTransient),
		transport.WithRetryStatusCodes(http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout))
	return transport.NewUserAgent(retry, userAgent), nil
}

// addCerts trusts the authorities, and presents the client certificates, that a folder has: *.crt, and pairs of *.cert
// and *.key.
func addCerts(c *tls.Config, dir string) error {
	files, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		switch filepath.Ext(path) {
		case ".crt":
			pem, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if c.RootCAs == nil {
				if c.RootCAs, err = x509.SystemCertPool(); err != nil {
					return err
				}
			}
			if !c.RootCAs.AppendCertsFromPEM(pem) {
				return fmt.Errorf("%s has no certificate", path)
			}
		case ".cert":
			cert, err := tls.LoadX509KeyPair(path, strings.TrimSuffix(path, ".cert")+".key")
			if err != nil {
				return err
			}
			c.Certificates = append(c.Certificates, cert)
		}
	}
	return nil
}

// isTransient reports whether a request may go well when it is made again.
func isTransient(err error) bool {
	var temporary interface{ Temporary() bool }
	if errors.As(err, &temporary) && temporary.Temporary() {
		return true
	}
	for _, passing := range []error{io.ErrUnexpectedEOF, io.EOF, net.ErrClosed, unix.ECONNRESET, unix.EPIPE} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// guard keeps a registry from what it should not do.
type guard struct {
	ask, send http.RoundTripper // for what changes nothing, and for what does
	plain     bool              // plain HTTP is allowed
}

// blobContext marks requests whose answer is a blob: it has a size and a digest, by which it is bounded elsewhere.
type blobContext struct{}

// maxBody bounds, in bytes, any answer that is not a blob.
const maxBody = maxConfig

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "http" && !g.plain {
		return nil, fmt.Errorf("plain HTTP to %s is not allowed (--tls-verify=false allows it)", req.URL.Host)
	}
	inner := g.send
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		inner = g.ask
	}
	resp, err := inner.RoundTrip(req)
	if err == nil && req.Context().Value(blobContext{}) == nil {
		resp.Body = &boundedBody{resp.Body, maxBody}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("the registry's answer is larger than %d bytes", maxBody)
	}
	return n, err
}

// checkRedirect is for http.Client: a registry may send us elsewhere, but not from outside into a private network,
// where an address alone may be a right.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("the registry redirects without end")
	}
	if from, to := via[0].URL.Hostname(), req.URL.Hostname(); from != to && isPrivate(to) && !isPrivate(from) {
		return fmt.Errorf("the registry redirects to %s, an address that is not public", to)
	}
	return nil
}

func isPrivate(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(trimBrackets(host))
	return err == nil && (ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified())
}

// wait waits for d, or until the context ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
