"""Run steps with Apache Beam: engines, jobs, tasks, receipts and the shuffle."""
