# Sourced before a pinned Python or uv starts: forgets what the reader has set for pip, uv, conda, Python, Jupyter and
# matplotlib of their own. What stays says where packages come from, whom to trust, how patient to be and where there is
# room: without it, a machine behind a proxy or a mirror gets nothing. It also stays in uv's and pip's own files, which
# get_uv.sh reads.
for name in $(env | LC_ALL=C sed -nE 's/^((PYTHON|PIP_|UV_|CONDA|MAMBA|_CE_|VIRTUAL|JUPYTER|JPY_|IPYTHON|MPL|MATPLOTLIB)[A-Za-z0-9_]*)=.*/\1/p'); do
  case $name in
    PIP_INDEX_URL | PIP_EXTRA_INDEX_URL | PIP_FIND_LINKS | PIP_NO_INDEX) ;;
    PIP_CERT | PIP_CLIENT_CERT | PIP_TRUSTED_HOST | PIP_PROXY | PIP_KEYRING_PROVIDER | PIP_USE_FEATURE) ;;
    PIP_TIMEOUT | PIP_DEFAULT_TIMEOUT | PIP_RETRIES | PIP_CACHE_DIR | PIP_CONFIG_FILE) ;;
    UV_DEFAULT_INDEX | UV_INDEX* | UV_EXTRA_INDEX_URL | UV_FIND_LINKS | UV_NO_INDEX | UV_PYTHON_INSTALL_MIRROR) ;;
    UV_NATIVE_TLS | UV_SYSTEM_CERTS | UV_INSECURE_HOST | UV_KEYRING_PROVIDER | UV_OFFLINE) ;;
    UV_*TIMEOUT | UV_HTTP_RETRIES | UV_CACHE_DIR | UV_CONFIG_FILE) ;;
    *) unset "$name" ;;
  esac
done
