"""What an operator watches: scrape configuration, rules, alerts and the dashboard."""
