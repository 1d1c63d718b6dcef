package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// RegistryOptions say how registries are reached.
type RegistryOptions struct {
	// Insecure lets a registry be reached by plain HTTP, or by HTTPS with a certificate that nobody vouches for. One on a
	// loopback address always may, as for Docker.
	Insecure bool

	// Keychain gives credentials. Default: Docker's configuration and its credential helpers.
	Keychain authn.Keychain
}

func (o RegistryOptions) fill() RegistryOptions {
	if o.Keychain == nil {
		o.Keychain = authn.DefaultKeychain
	}
	return o
}

// userAgent is what registries see of us.
const userAgent = "lamina"

// retryBackoff is how long to wait before a request that failed for a passing reason is made again.
var retryBackoff = remote.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.1, Steps: 5}

// repository is a repository in a registry.
type repository struct {
	o    RegistryOptions
	repo name.Repository
	base http.RoundTripper // without credentials
}

// newRepository takes the repository of a name apart, and reaches nothing yet.
func newRepository(ref reference.Named, o RegistryOptions) (*repository, error) {
	o = o.fill()
	o.Insecure = o.Insecure || isLoopback(reference.Domain(ref))
	var opts []name.Option
	if o.Insecure {
		opts = append(opts, name.Insecure)
	}
	repo, err := name.NewRepository(ref.Name(), opts...)
	if err != nil {
		return nil, err
	}
	base, err := newTransport(repo.Registry, o.Insecure)
	if err != nil {
		return nil, err
	}
	return &repository{o: o, repo: repo, base: base}, nil
}

// isLoopback reports whether a registry is on this machine.
func isLoopback(domain string) bool {
	host := domain
	if h, _, err := net.SplitHostPort(domain); err == nil {
		host = h
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(trimBrackets(host))
	return err == nil && ip.IsLoopback()
}

func trimBrackets(host string) string {
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		return host[1 : len(host)-1]
	}
	return host
}

// reference is a tag or a digest in the repository.
func (r *repository) reference(ref reference.Named) name.Reference {
	switch ref := ref.(type) {
	case reference.Canonical:
		return r.repo.Digest(ref.Digest().String())
	case reference.NamedTagged:
		return r.repo.Tag(ref.Tag())
	}
	return r.repo.Tag(name.DefaultTag)
}

// login asks the registry how it wants to be talked to, and presents the credentials there are.
func (r *repository) login(ctx context.Context, scope string) (http.RoundTripper, error) {
	auth, err := authn.Resolve(ctx, r.o.Keychain, r.repo)
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", r.repo.RegistryStr(), err)
	}
	return transport.NewWithContext(ctx, r.repo.Registry, auth, r.base, []string{r.repo.Scope(scope)})
}

// denied says in Docker's words why a registry does not give or take an image.
func denied(err error, ref reference.Named, action string) error {
	var e *transport.Error
	if !errors.As(err, &e) {
		return err
	}
	familiar := reference.FamiliarName(ref)
	switch e.StatusCode {
	case http.StatusNotFound:
		if action == "pull" {
			return fmt.Errorf("manifest for %s not found: %w", reference.FamiliarString(ref), err)
		}
	case http.StatusUnauthorized, http.StatusForbidden:
		if action == "pull" {
			return fmt.Errorf("pull access denied for %s, repository does not exist or may require 'lamina login': %w", familiar, err)
		}
		return fmt.Errorf("push access denied for %s: 'lamina login' may help: %w", familiar, err)
	}
	return err
}
