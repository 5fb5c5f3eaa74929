-- The lending database. Written for SQLite; dates are text such as 2024-03-01, amounts are cents.

PRAGMA foreign_keys = ON;

CREATE TABLE title (
    title_id    INTEGER PRIMARY KEY,
    name        TEXT NOT NULL CHECK (trim(name) <> ''),
    author      TEXT NOT NULL DEFAULT '',
    year        INTEGER CHECK (year BETWEEN 1400 AND 2200),
    language    TEXT NOT NULL DEFAULT 'en' CHECK (length(language) IN (2, 3))
);

CREATE TABLE copy (
    barcode     TEXT PRIMARY KEY CHECK (length(barcode) = 10),
    title_id    INTEGER NOT NULL REFERENCES title ON DELETE RESTRICT,
    shelf_mark  TEXT NOT NULL,
    acquired    TEXT NOT NULL CHECK (date(acquired) IS NOT NULL),
    withdrawn   TEXT CHECK (withdrawn >= acquired)
);

CREATE INDEX copy_by_title ON copy (title_id) WHERE withdrawn IS NULL;

CREATE TABLE reader (
    reader_id   INTEGER PRIMARY KEY,
    name        TEXT NOT NULL,
    born        TEXT CHECK (date(born) IS NOT NULL),
    email       TEXT UNIQUE COLLATE NOCASE,
    blocked     INTEGER NOT NULL DEFAULT 0 CHECK (blocked IN (0, 1))
);

CREATE TABLE loan (
    loan_id     INTEGER PRIMARY KEY,
    barcode     TEXT NOT NULL REFERENCES copy,
    reader_id   INTEGER NOT NULL REFERENCES reader,
    lent        TEXT NOT NULL DEFAULT (date('now')),
    due         TEXT NOT NULL CHECK (due > lent),
    returned    TEXT CHECK (returned >= lent),
    renewals    INTEGER NOT NULL DEFAULT 0 CHECK (renewals BETWEEN 0 AND 3)
);

-- A book can be lent to one reader at a time.
CREATE UNIQUE INDEX open_loan_of_copy ON loan (barcode) WHERE returned IS NULL;
CREATE INDEX loan_by_reader ON loan (reader_id, returned);

CREATE TABLE fee (
    fee_id      INTEGER PRIMARY KEY,
    loan_id     INTEGER NOT NULL REFERENCES loan,
    cents       INTEGER NOT NULL CHECK (cents > 0),
    paid        TEXT,
    UNIQUE (loan_id)
);

CREATE TRIGGER no_loan_to_blocked_readers
BEFORE INSERT ON loan
WHEN (SELECT blocked FROM reader WHERE reader_id = NEW.reader_id) = 1
BEGIN
    SELECT RAISE(ABORT, 'the reader is blocked');
END;

CREATE TRIGGER no_loan_of_withdrawn_copies
BEFORE INSERT ON loan
WHEN (SELECT withdrawn FROM copy WHERE barcode = NEW.barcode) IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'the copy was withdrawn');
END;

-- Ten cents for each day, at most eight euros, when a book comes back late.
CREATE TRIGGER fee_for_late_return
AFTER UPDATE OF returned ON loan
WHEN OLD.returned IS NULL AND NEW.returned > NEW.due
BEGIN
    INSERT INTO fee (loan_id, cents)
    VALUES (NEW.loan_id, min(800, 10 * CAST(julianday(NEW.returned) - julianday(NEW.due) AS INTEGER)));
END;

CREATE VIEW on_shelf AS
SELECT copy.barcode, copy.shelf_mark, title.name, title.author
FROM copy
JOIN title USING (title_id)
LEFT JOIN loan ON loan.barcode = copy.barcode AND loan.returned IS NULL
WHERE copy.withdrawn IS NULL AND loan.loan_id IS NULL;
