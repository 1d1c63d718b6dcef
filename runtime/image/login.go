package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	dockerconfig "github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	configtypes "github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// DockerHub is the registry that names without one are in, as Docker's configuration calls it.
const DockerHub = authn.DefaultAuthKey

// LoginOptions say who logs in, and where.
type LoginOptions struct {
	Registry string // HOST[:PORT]; empty for Docker Hub
	Username string
	Password string
	Insecure bool // as RegistryOptions.Insecure

	// ConfigDir is the folder of config.json. Default: $DOCKER_CONFIG, else ~/.docker.
	ConfigDir string
}

// Login presents credentials to a registry, and keeps them where Docker does: with the credential helper of
// config.json, or in that file.
//
// plainFile is the file where the password stands unencrypted, empty where a helper has it.
// Errors: the registry's, in which case nothing is kept.
func Login(ctx context.Context, o LoginOptions) (plainFile string, err error) {
	if o.Username == "" || o.Password == "" {
		return "", errors.New("login: a username and a password are needed")
	}
	if err := present(ctx, o); err != nil {
		return "", fmt.Errorf("login to %s: %w", shownRegistry(o.Registry), err)
	}
	key := registryKey(o.Registry)
	file, err := dockerconfig.Load(o.ConfigDir)
	if err != nil {
		return "", fmt.Errorf("login: %w", err)
	}
	useHelper(file)
	credentials := configtypes.AuthConfig{Username: o.Username, Password: o.Password, ServerAddress: key}
	if file.CredentialsStore == "" && file.CredentialHelpers[key] == "" {
		// What the library's own store does, which then writes to stderr, where it is not for it to write.
		file.GetAuthConfigs()[key] = credentials
		plainFile, err = file.GetFilename(), file.Save()
	} else {
		err = file.GetCredentialsStore(key).Store(credentials)
	}
	if err != nil {
		return "", fmt.Errorf("login: keep the credentials: %w", err)
	}
	return plainFile, nil
}

// useHelper takes the platform's credential helper where there is one and no credentials are kept otherwise, as Docker.
func useHelper(file *configfile.ConfigFile) {
	if !file.ContainsAuth() {
		file.CredentialsStore = credentials.DetectDefaultStore(file.CredentialsStore)
	}
}

// present logs in, and sees that the registry answers.
func present(ctx context.Context, o LoginOptions) error {
	host := o.Registry
	if host == DockerHub {
		host = ""
	}
	insecure := o.Insecure || isLoopback(host)
	var opts []name.Option
	if insecure {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(host, opts...)
	if err != nil {
		return err
	}
	base, err := newTransport(reg, insecure)
	if err != nil {
		return err
	}
	auth := authn.FromConfig(authn.AuthConfig{Username: o.Username, Password: o.Password})
	tr, err := transport.NewWithContext(ctx, reg, auth, base, nil)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, reg.Scheme()+"://"+reg.RegistryStr()+"/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: tr, CheckRedirect: checkRedirect}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return transport.CheckError(resp, http.StatusOK)
}

// Logout forgets the credentials for a registry, empty for Docker Hub. found says whether there were any.
func Logout(registry, configDir string) (found bool, err error) {
	file, err := dockerconfig.Load(configDir)
	if err != nil {
		return false, fmt.Errorf("logout: %w", err)
	}
	key := registryKey(registry)
	keys := []string{key}
	if key != DockerHub { // older clients kept whole addresses
		keys = append(keys, "http://"+key, "https://"+key)
	}
	for _, k := range keys {
		a, err := file.GetAuthConfig(k)
		had := err == nil && (a.Username != "" || a.IdentityToken != "" || a.Auth != "")
		if err := file.GetCredentialsStore(k).Erase(k); err != nil && had {
			return found, fmt.Errorf("logout from %s: %w", shownRegistry(registry), err)
		}
		found = found || had
	}
	return found, nil
}

// Credentials returns the user who is logged in to a registry, "" for none.
func Credentials(registry, configDir string) (username, password string, err error) {
	file, err := dockerconfig.Load(configDir)
	if err != nil {
		return "", "", err
	}
	a, err := file.GetAuthConfig(registryKey(registry))
	return a.Username, a.Password, err
}

// registryKey is what Docker's configuration calls a registry.
func registryKey(registry string) string {
	switch registry {
	case "", "docker.io", "index.docker.io", DockerHub:
		return DockerHub
	}
	return credentials.ConvertToHostname(registry)
}

func shownRegistry(registry string) string {
	if registryKey(registry) == DockerHub {
		return "Docker Hub"
	}
	return registry
}
