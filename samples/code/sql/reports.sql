-- Reports for the meeting on the first Monday of the month. :month is a text such as 2024-02.

-- 1. Loans by language, with the change since the month before.
WITH counted AS (
    SELECT strftime('%Y-%m', loan.lent) AS month, title.language, count(*) AS loans
    FROM loan
    JOIN copy USING (barcode)
    JOIN title USING (title_id)
    GROUP BY month, title.language
)
SELECT now.language, now.loans, now.loans - coalesce(before.loans, 0) AS change
FROM counted AS now
LEFT JOIN counted AS before
    ON before.language = now.language
    AND before.month = strftime('%Y-%m', now.month || '-01', '-1 month')
WHERE now.month = :month
ORDER BY now.loans DESC, now.language;

-- 2. Titles that readers wait for: lent out all the time, with few copies.
SELECT
    title.name,
    count(DISTINCT copy.barcode) AS copies,
    round(sum(
        julianday(coalesce(loan.returned, 'now')) - julianday(loan.lent)
    ) / (count(DISTINCT copy.barcode) * 90.0), 2) AS share_of_time_lent
FROM title
JOIN copy ON copy.title_id = title.title_id AND copy.withdrawn IS NULL
JOIN loan ON loan.barcode = copy.barcode AND loan.lent >= date('now', '-90 days')
GROUP BY title.title_id
HAVING share_of_time_lent > 0.8
ORDER BY share_of_time_lent DESC
LIMIT 20;

-- 3. Copies that nobody borrowed for five years, as candidates to be withdrawn; the last copy of a title stays.
WITH last_loan AS (
    SELECT barcode, max(lent) AS lent FROM loan GROUP BY barcode
),
ranked AS (
    SELECT
        copy.barcode,
        copy.shelf_mark,
        copy.title_id,
        last_loan.lent,
        row_number() OVER (
            PARTITION BY copy.title_id ORDER BY last_loan.lent DESC NULLS LAST, copy.acquired DESC
        ) AS place
    FROM copy
    LEFT JOIN last_loan USING (barcode)
    WHERE copy.withdrawn IS NULL
)
SELECT ranked.shelf_mark, ranked.barcode, title.name, coalesce(ranked.lent, 'never') AS last_lent
FROM ranked
JOIN title USING (title_id)
WHERE ranked.place > 1 AND coalesce(ranked.lent, '') < date('now', '-5 years')
ORDER BY ranked.shelf_mark;

-- 4. Money: fees that arose in the month, what was paid in it, and what is still owed by age of the debt.
SELECT
    (SELECT coalesce(sum(cents), 0) FROM fee JOIN loan USING (loan_id)
     WHERE strftime('%Y-%m', loan.returned) = :month) / 100.0 AS arisen,
    (SELECT coalesce(sum(cents), 0) FROM fee WHERE strftime('%Y-%m', paid) = :month) / 100.0 AS paid;

SELECT
    CASE
        WHEN julianday('now') - julianday(loan.returned) < 30 THEN 'under a month'
        WHEN julianday('now') - julianday(loan.returned) < 365 THEN 'under a year'
        ELSE 'older'
    END AS age,
    count(*) AS fees,
    sum(fee.cents) / 100.0 AS owed
FROM fee
JOIN loan USING (loan_id)
WHERE fee.paid IS NULL
GROUP BY age
ORDER BY min(julianday('now') - julianday(loan.returned));
